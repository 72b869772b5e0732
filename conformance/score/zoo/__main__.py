"""`python -m conformance.score.zoo`: list the zoo and test that every entry applies; `--show NAME`: one entry."""

import argparse
import sys
from collections import Counter

from conformance.score.zoo.entries import Bug
from conformance.score.zoo.mutants import MODULES, kept_mutants, mutants
from conformance.score.zoo.seeding import ZooBroken, difference, load_zoo, seeded


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 1 if an entry does not apply."""
    parser = argparse.ArgumentParser(prog="python -m conformance.score.zoo", description=__doc__)
    parser.add_argument("--show", metavar="NAME", help="print this entry as a diff (any mutant, too)")
    name = parser.parse_args(arguments).show
    return show(name) if name else check()


def show(name: str) -> int:
    """Print one entry and its diff."""
    every = [*load_zoo(), *(bug for module in MODULES if name.startswith("mutant-") for bug in mutants(module))]
    bug = next((bug for bug in every if bug.name == name), None)
    if bug is None:
        print(f"error: there is no zoo entry {name!r}", file=sys.stderr)
        return 2
    print(f"{bug.name} ({bug.kind}, {bug.area})\n{bug.what}\nplace: {bug.module}\nsource: {bug.source}")
    print(f"needs: {bug.needs}" if bug.needs else "needs: any model")
    print(difference(bug) if bug.edits else f"by {bug.custom}")
    return 0


def check() -> int:
    """Seed and restore every entry; print the counts and the broken entries."""
    zoo, kept = load_zoo(), kept_mutants()
    broken = [problem for bug in [*zoo, *kept] if (problem := problem_of(bug))]
    print(zoo_table(zoo))
    total = sum(1 for module in MODULES for _ in mutants(module))
    print(f"{len(zoo)} entries, {len({bug.source for bug in zoo} - {'own'})} threads; {len(kept)} of {total} mutants kept")
    print("\n".join(broken) if broken else "all apply")
    return int(bool(broken))


def problem_of(bug: Bug) -> str | None:
    """Why an entry does not apply."""
    try:
        with seeded(bug):
            return None
    except ZooBroken as error:
        return f"BROKEN {error}"


def zoo_table(zoo: list[Bug]) -> str:
    """Entries by area and kind."""
    kinds = ("semantic", "precision", "decoy")
    counts = Counter((bug.area, bug.kind) for bug in zoo)
    areas = list(dict.fromkeys(bug.area for bug in zoo))
    rows = [("area", *kinds)] + [(area, *(str(counts[area, kind] or "") for kind in kinds)) for area in areas]
    rows.append(("all", *(str(sum(bug.kind == kind for bug in zoo)) for kind in kinds)))
    return "\n".join(f"{area:<15}" + "".join(f"{cell:>11}" for cell in cells) for area, *cells in rows)


if __name__ == "__main__":
    sys.exit(main())
