"""`nanollama export`: a checkpoint written as a GGUF file or as a folder of safetensors."""

from argparse import Namespace
from pathlib import Path

from nanollama.checkpoint.export import export_folder, plan_gguf
from nanollama.checkpoint.gguf.writer import GgufPlan
from nanollama.checkpoint.hub import resolve
from nanollama.checkpoint.source import open_source
from nanollama.cli.output import file_path, write
from nanollama.cli.quantize import write_plan
from nanollama.quant.file_types import find_file_type


def export_command(options: Namespace) -> int:
    """Write a checkpoint in another form."""
    target, file_type = file_path(options.to), options.type.lower()
    find_file_type(file_type)
    source = open_source(resolve(options.model))
    if target.suffix == ".gguf":
        plan = plan_gguf(source, target, file_type, options.allow_requantize)
        write_plan(plan, target)
        write(f"{gguf_summary(target, plan)}\n")
    else:
        write(f"{folder_summary(target, file_type, export_folder(source, target, file_type))}\n")
    return 0


def gguf_summary(target: Path, plan: GgufPlan) -> str:
    """One line on the file that was written."""
    bits = f"{8 * plan.size / plan.values:.2f} bits per weight"
    return f"{target}: {len(plan.tensors)} tensors, {plan.size:,} bytes ({bits})"


def folder_summary(target: Path, file_type: str, sizes: dict[str, int]) -> str:
    """One line on the folder that was written. sizes: bytes of tensors by file."""
    files = "1 file" if len(sizes) == 1 else f"{len(sizes)} files"
    return f"{target}: {files} of safetensors, {sum(sizes.values()):,} bytes of {file_type}"
