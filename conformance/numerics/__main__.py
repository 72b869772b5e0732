"""`python -m conformance.numerics`: measure the noise floor, judge the runtime by it, compare acceptance rules."""

import argparse
import datetime
import json
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from conformance.models.fixtures import FIXTURES
from conformance.numerics.check import check, false_alarms
from conformance.numerics.floor import FLOOR, make_floors, to_json
from conformance.numerics.variants import VARIANTS, without_compiler
from conformance.truth.golden import LOW_PRECISIONS
from nanollama.errors import NanollamaError
from nanollama.model.dtypes import pick_device


def processor() -> str:
    """The name of this machine's CPU."""
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def provenance(device: str) -> dict[str, str]:
    """The command, machine, versions and date of a measurement."""
    place = torch.device(device)
    return {
        "command": f"python -m conformance.numerics floor --device {device}",
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(place) if place.type == "cuda" else processor(),
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def floor_command(dtypes: list[str], device: str, families: list[str], path: Path) -> int:
    """Measure and store; other devices' floors stay as they are."""
    stored: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    for dtype in dtypes:
        floors = make_floors(dtype, device, families)
        floors.provenance = provenance(device) | floors.provenance
        stored.setdefault(torch.device(device).type, {})[dtype] = to_json(floors)
        print(f"{dtype} on {device}: {floors.provenance['runs']} runs, {floors.provenance['taps']} taps")
        for view, tiers in floors.factors.items():
            for tier, factor in tiers.items():
                stated = ", ".join(f"{name} {value:.2f}" for name, value in vars(factor).items())
                print(f"  {view:12} {tier:6} leave-one-out factor: {stated}", flush=True)
    path.write_text(compact(json.dumps(stored, indent=1)) + "\n")
    return 0


def compact(text: str) -> str:
    """JSON with its innermost lists on one line each."""
    out: list[str] = []
    inside = False
    for line in text.splitlines():
        if inside:
            inside = not line.strip().startswith("]")
            out[-1] += line.strip() + (" " if inside and line.endswith(",") else "")
        else:
            out.append(line)
            inside = line.endswith("[")
    return "\n".join(out)


def check_command(dtypes: list[str], device: str, families: list[str]) -> int:
    """Judge the live runtime."""
    bad = 0
    for architecture in families:
        for dtype in dtypes:
            judgement = check(architecture, dtype, device)
            bad += judgement.verdict not in ("PASS", "NOTE")
            line = f"{architecture:22}{dtype:10}{judgement.verdict:6}{judgement.taps:4} taps, {judgement.excused} excused"
            first = next(iter(judgement.beyond("all") or judgement.beyond("order")), None)
            print(line + (f"; {first.place}: {first.statistic} {first.excess:.2f}x" if first else ""), flush=True)
    return 1 if bad else 0


def alarms_command(dtypes: list[str], device: str, families: list[str], compile: bool) -> int:
    """How often honest variants are flagged, on weights that the floor was not made from."""
    if compile and (reason := without_compiler()):
        print(f"not compiled: {reason}")
        compile = False
    alarms = false_alarms(dtypes, device, families, compile=compile)
    for line in alarms.lines():
        print(line)
    return 1 if alarms.runs == 0 or len(alarms.flagged) > alarms.runs / 100 else 0


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(prog="python -m conformance.numerics", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    for name, what in (
        ("floor", "measure the noise floor on this machine and store it"),
        ("check", "judge the runtime by the floor, name the first module beyond it"),
        ("alarms", "how often honest variants are flagged, on weights that the floor was not made from"),
        ("rules", "published acceptance rules and the suite's, on the zoo's bugs and the variants"),
        ("variants", "list the variants"),
    ):
        command = commands.add_parser(name, help=what)
        command.add_argument("--device", default="cpu", help="cpu, cuda, mps (cpu)")
        command.add_argument("--family", action="append", default=[], choices=[*FIXTURES], help="only these families")
        command.add_argument("--dtype", action="append", default=[], choices=LOW_PRECISIONS, help="only these dtypes")
        if name == "floor":
            command.add_argument("--output", type=Path, default=FLOOR, help="file to write (golden/floor.json)")
        if name == "alarms":
            command.add_argument("--compile", action="store_true", help="torch.compile too, which takes minutes")
        if name == "rules":
            command.add_argument("--bugs", type=int, default=0, help="number of bugs, spread over the areas (0: all)")
            command.add_argument("--cache", type=Path, help="folder for finished results (~/.cache/nanollama-rules)")
            command.add_argument("--output", type=Path, help="also write the table as JSON to this file")
            command.add_argument("--fresh", action="store_true", help="ignore cached results")
            command.add_argument("--write", action="store_true", help="publish: golden/rules.json and conformance/README.md")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit status (2: bad input)."""
    options = parser().parse_args(arguments)
    torch.set_num_threads(1)
    try:
        device = str(pick_device(options.device))
        return dispatch(options, device, options.dtype or list(LOW_PRECISIONS), options.family or list(FIXTURES))
    except NanollamaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def dispatch(options: argparse.Namespace, device: str, dtypes: list[str], families: list[str]) -> int:
    """Call the command's function."""
    if options.command == "floor":
        return floor_command(dtypes, device, families, options.output)
    if options.command == "check":
        return check_command(dtypes, device, families)
    if options.command == "alarms":
        return alarms_command(dtypes, device, families, options.compile)
    if options.command == "variants":
        for v in VARIANTS:
            print(f"{v.name:24}{'policy' if v.policy else 'order':8}{'held out' if v.held_out else '':10}{v.what}")
        return 0
    from conformance.numerics.acceptance.rules import rules_command

    wanted = options.family, device, options.bugs, options.cache, options.output, options.fresh, options.write
    return rules_command(*wanted)


if __name__ == "__main__":
    sys.exit(main())
