"""Every command of the command line, with its options and an example."""

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from nanollama.cli.settings import SETTINGS, add_settings, whole
from nanollama.errors import NanollamaError

DEFAULT_MODEL = "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"


class Parser(argparse.ArgumentParser):
    """An argparse parser that raises its errors as NanollamaError, and prints no usage before them."""

    def error(self, message: str) -> NoReturn:
        raise NanollamaError(f"{message} (`{self.prog} --help` shows what there is)")


def at_least_one(text: str) -> int:
    """A whole number from 1."""
    try:
        value = whole(text)
    except NanollamaError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is too small; expected at least 1")
    return value


def add_model(parser: Parser) -> None:
    """Add the options that choose a model, its device and its dtype."""
    group = parser.add_argument_group("model")
    group.add_argument("--model", default=DEFAULT_MODEL, metavar="MODEL", help=f"folder, GGUF file or hub id ({DEFAULT_MODEL})")
    group.add_argument("--device", default="auto", metavar="DEVICE", help="auto, cpu, cuda, cuda:1, mps (auto)")
    group.add_argument("--dtype", default="auto", metavar="DTYPE", help="auto, float64, float32, bfloat16, float16 (auto)")
    group.add_argument("--quantize", choices=("q8", "q4"), help="round the matrices to 8 or 4 bits and keep them so in memory")
    group.add_argument("--compile", action="store_true", help="compile the layers with torch.compile; begins slowly")


def add_generation(parser: Parser) -> None:
    """Add the options of every command that generates: model, context and settings."""
    add_model(parser)
    group = parser.add_argument_group("generation (defaults in brackets)")
    group.add_argument("--context", type=at_least_one, metavar="N", help="tokens of prompt and answer together (the model's)")
    add_settings(group)


def run_options(parser: Parser) -> None:
    parser.add_argument("--prompt", metavar="TEXT", help="the text to continue; stdin if it is missing or -")
    parser.add_argument("--chat", action="store_true", help="the prompt is a user's message for the chat template")
    parser.add_argument("--system", metavar="TEXT", help="the system prompt before it (with --chat)")
    parser.add_argument("--parse-special", action="store_true", help="special tokens spelled in the prompt count as such")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end, and nothing else, on stdout")
    add_generation(parser)


def chat_options(parser: Parser) -> None:
    parser.add_argument("--system", metavar="TEXT", help="the system prompt")
    add_generation(parser)


def batch_options(parser: Parser) -> None:
    parser.add_argument("file", metavar="FILE", help="the prompts; - is stdin, read as plain lines")
    parser.add_argument("--batch-size", type=at_least_one, default=8, metavar="N", help="prompts answered together (8)")
    parser.add_argument("--output", metavar="FILE", help="write the results there (replaced when all is done), not to stdout")
    add_generation(parser)


def bench_options(parser: Parser) -> None:
    parser.add_argument("--prompt-tokens", type=at_least_one, default=128, metavar="N", help="length of the prompt (128)")
    parser.add_argument("--new-tokens", type=at_least_one, default=64, metavar="N", help="tokens to decode (64)")
    parser.add_argument("--repeats", type=at_least_one, default=3, metavar="N", help="runs, of which the median counts (3)")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")
    add_model(parser)


def verify_options(parser: Parser) -> None:
    parser.add_argument("a", metavar="A", help="folder, GGUF file or hub id, or transformers:FOLDER, q8:…, q4:…")
    parser.add_argument("b", metavar="B", help="the other one")
    parser.add_argument("--dtype", metavar="DTYPE", help="float64, float32, bfloat16, float16 (float64)")
    parser.add_argument("--bar", metavar="E", help="largest relative error that counts as equal (1e-10)")
    parser.add_argument("--ids", metavar="ID,ID,…", help="prompt as token ids")
    parser.add_argument("--text", metavar="FILE", help="also KL, top-1 agreement and perplexity on this text")
    parser.add_argument("--tokens", type=at_least_one, metavar="N", help="how many tokens of the text (2048)")


def doctor_options(parser: Parser) -> None:
    parser.add_argument("--device", metavar="DEVICE", help="auto, cpu, cuda, mps (auto)")


def pull_options(parser: Parser) -> None:
    parser.add_argument("model", metavar="ID", help="hub id: org/name or org/name@revision")


def show_options(parser: Parser) -> None:
    parser.add_argument("model", metavar="MODEL", help="folder, GGUF file, or hub id that was pulled before")
    parser.add_argument("--tensors", action="store_true", help="list every tensor with its dtype and shape")
    parser.add_argument("--quantize", choices=("q8", "q4"), help="instead, the error and the bytes of every matrix after this")


def export_options(parser: Parser) -> None:
    from nanollama.quant.file_types import (
        FILE_TYPES,
    )  # here: its room imports torch, and other commands' `--help` need not wait

    parser.add_argument("model", metavar="MODEL", help="folder, GGUF file, or hub id")
    parser.add_argument("--to", required=True, metavar="PLACE", help="a file that ends in .gguf, or a new folder")
    parser.add_argument("--type", default="bf16", metavar="TYPE", help=f"{' '.join(FILE_TYPES)}; a folder: f32 f16 bf16 (bf16)")
    parser.add_argument("--allow-requantize", action="store_true", help="round again what is quantized already")


def quantize_options(parser: Parser) -> None:
    from nanollama.quant.file_types import FILE_TYPES

    parser.add_argument("source", metavar="FILE", help="GGUF file to read; of a split one any part")
    parser.add_argument("--to", required=True, metavar="FILE", help="GGUF file to write (replaced when all is done)")
    parser.add_argument("--type", required=True, metavar="TYPE", help=" ".join(FILE_TYPES))
    parser.add_argument("--allow-requantize", action="store_true", help="round again what is quantized already")


def kata_options(parser: Parser) -> None:
    actions = ("list", "start", "check", "hint", "watch", "solution", "diff", "reset")
    parser.add_argument("action", choices=actions, metavar="ACTION", help=" ".join(actions))
    parser.add_argument("kata", nargs="?", metavar="KATA", help="which one; by default the one you worked on last")
    parser.add_argument("--folder", metavar="DIR", help="where your files are (kata/ in the clone)")


@dataclass(frozen=True)
class Command:
    """A command of the command line.

    what: its purpose in a few words. needs: its positional arguments. options: adds them and the options to a parser.
    suite: the conformance suite does the work (cli/suite.py).
    """

    what: str
    needs: str
    options: Callable[["Parser"], None]
    example: str
    suite: bool = False


COMMANDS = {
    "run": Command(
        "continue a text, or answer one message",
        "",
        run_options,
        """examples:
  nanollama run --model FOLDER --prompt "Once upon a time" --temp 0.8 --max-tokens 200
  nanollama run --chat --prompt "Why is the sky blue?"
  nanollama run --model FOLDER --json < prompt.txt > answer.json

The answer goes to stdout as it is made, all else to stderr. From stdin, one newline at the end is not part of the prompt.""",
    ),
    "chat": Command(
        "chat with a model",
        "",
        chat_options,
        """example:
  nanollama chat --model FOLDER --system "Answer briefly." --temp 0.7

/help lists the commands. Ctrl-C stops the answer, Ctrl-D leaves. When the context is full, the oldest turns are left out,
never the system prompt. Without a terminal, messages are read line by line from stdin.""",
    ),
    "batch": Command(
        "answer the prompts of a file, several at a time",
        " FILE",
        batch_options,
        f"""examples:
  nanollama batch prompts.txt --model FOLDER --temp 0
  nanollama batch requests.jsonl --model FOLDER --batch-size 16 --output answers.jsonl

In a .jsonl file every line is an object: {{"prompt": "Once"}} or {{"messages": [{{"role": "user", "content": "Hi"}}]}}, and any
of the settings
  {" ".join(list(SETTINGS)[:8])}
  {" ".join(list(SETTINGS)[8:])}
In any other file every line is a prompt. For each line, in order, one JSON object comes out: "line" and either "text",
"token_ids", "finish_reason", "usage" and "seed", or "error". The exit status is 1 if there were errors.""",
    ),
    "bench": Command(
        "measure this machine with a model",
        "",
        bench_options,
        "example:\n  nanollama bench --model FOLDER --dtype bfloat16 --prompt-tokens 512 --new-tokens 64",
    ),
    "verify": Command(
        "compare two models layer by layer, name the first module that differs",
        " A B",
        verify_options,
        """example:
  nanollama verify FOLDER transformers:FOLDER
  nanollama verify FOLDER model-q4_k_m.gguf --text book.txt

The exit status is 1 if they differ. Needs the clone of the project: the installed package has no suite.""",
        suite=True,
    ),
    "doctor": Command(
        "check the runtime on this machine, device and dtype by dtype",
        "",
        doctor_options,
        """example:
  nanollama doctor --device cpu

The exit status is 1 if a check fails. Needs the clone of the project: the installed package has no suite.""",
        suite=True,
    ),
    "pull": Command(
        "download a model into the cache, print its folder",
        " ID",
        pull_options,
        f"example:\n  nanollama pull {DEFAULT_MODEL}\n\nHF_HOME moves the cache, HF_TOKEN logs in.",
    ),
    "show": Command(
        "show what a checkpoint holds: config, parameters, tensors",
        " MODEL",
        show_options,
        "examples:\n  nanollama show FOLDER --tensors\n  nanollama show model.gguf",
    ),
    "export": Command(
        "write a checkpoint as a GGUF file, or as a folder of safetensors",
        " MODEL --to PLACE --type TYPE",
        export_options,
        """examples:
  nanollama export FOLDER --to model.gguf --type q8_0
  nanollama export model.gguf --to FOLDER --type bf16

Tokenizer and chat template are written too. A config that a GGUF file can't express is an error, and nothing is written.""",
    ),
    "quantize": Command(
        "write a GGUF file again with fewer bits per weight",
        " FILE --to FILE --type TYPE",
        quantize_options,
        """example:
  nanollama quantize model-f16.gguf --to model-q4_k_m.gguf --type q4_k_m

Any architecture will do. Metadata, norms, biases and other small tensors stay as they are. The head and some others get more
bits: each tensor gets the format that llama.cpp chooses for that type.""",
    ),
    "kata": Command(
        "write a function of this runtime yourself, against its tests",
        " ACTION [KATA]",
        kata_options,
        """examples:
  nanollama kata list
  nanollama kata start rmsnorm
  nanollama kata check

start cuts a function out of a copy of its module, for you to write; check tests your copy, watch tests it on every save.
hint gives a little more each time, solution and diff show the runtime's code, reset begins again and keeps a copy of yours.
Needs the clone of the project: the installed package has no exercises. check exits with 1 while a test fails.""",
        suite=True,
    ),
}


def home_of(name: str) -> str:
    """The module of the package that holds the function `NAME_command`."""
    command = COMMANDS[name]
    return "cli.suite" if command.suite else f"cli.{name}"


def command_parser(name: str) -> Parser:
    """The options of one command."""
    parser = Parser(
        prog=f"nanollama {name}",
        usage=f"nanollama {name}{COMMANDS[name].needs} [OPTIONS]",
        description=f"nanollama {name}: {COMMANDS[name].what}.",
        epilog=COMMANDS[name].example,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    COMMANDS[name].options(parser)
    return parser


def parse(name: str, arguments: Sequence[str]) -> argparse.Namespace:
    """The options of a command line; raises NanollamaError for a command line that argparse refuses."""
    if lost := [argument for argument in arguments if re.fullmatch(r"--[\w-]+=--", argument)]:
        raise NanollamaError(f"{lost[0]}: -- can't be a value")  # argparse would take it for the end of the options
    return command_parser(name).parse_args(arguments)
