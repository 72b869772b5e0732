"""`nanollama chat`: a conversation, line by line. stdout gets the answers, stderr everything else."""

import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from nanollama.cli.output import Answer, file_path, new_file, notice, write
from nanollama.cli.run import load_lm, notice_end
from nanollama.cli.settings import SETTINGS, Values, default, make_request, naming, read_settings, read_typed
from nanollama.errors import NanollamaError, unknown_name
from nanollama.lm import LM
from nanollama.text.chat.conversation import Conversation, Message, load_conversation, to_json

PROMPT, MORE = "> ", "... "
QUOTES = '"""'
LONGEST_LINE = 16_000_000  # characters; a stream without a line's end must not fill the memory
HELP = """\
/system TEXT      set the system prompt; /system alone shows it, /system - removes it
/set NAME VALUE   change a setting; VALUE "default" resets it; /set NAME shows one, /set shows all
/clear            forget all messages; the system prompt stays
/save FILE        write the conversation as JSON; an existing file needs /save! FILE
/load FILE        go on with a conversation from a file
/exit             leave; Ctrl-D does the same
Ctrl-C stops an answer and keeps its text. Three double quotes begin a message of several
lines, three more end it; such a message may begin with a slash."""


def chat_command(options: Namespace) -> int:
    """Chat with a model until the input ends."""
    settings = read_settings(options)
    if sys.stdin is None:
        raise NanollamaError("stdin is closed, so no message can be read; give messages there, one a line")
    lm = load_lm(options)
    if lm.template is None:
        raise NanollamaError(
            f"{options.model} has no chat template, it is a base model: use `nanollama run`, which continues a text"
        )
    lm.stream([], context=options.context)  # refuses a context that the model does not have
    repl = Repl(lm, settings, options.context or lm.config.max_position_embeddings, terminal=sys.stdin.isatty())
    if options.system is not None:
        repl.system(options.system)
    if repl.terminal:
        with suppress(ImportError):  # not on Windows; where it is, input() gets a history and an editable line
            import readline  # noqa: F401
        notice("/help lists the commands, Ctrl-D leaves")
    return repl.run()


@dataclass
class Repl:
    """The loop that reads messages and commands. `terminal`: a person types; if not, an error makes the exit status 2."""

    lm: LM
    settings: Values
    context: int
    terminal: bool = False
    conversation: Conversation = field(default_factory=Conversation)

    def run(self) -> int:
        """Read and answer until the input ends or /exit; the exit status."""
        status = 0
        while True:
            try:
                if not self.step():
                    return status
            except NanollamaError as error:
                notice("error: " + " ".join(error.problem.split()))
                status = 0 if self.terminal else 2
            except KeyboardInterrupt:
                if not self.terminal:
                    raise
                notice("\n(/exit or Ctrl-D leaves)")

    def step(self) -> bool:
        """Read one message or command and run it; False after the last."""
        line = self.read_line(PROMPT)
        if line is None or line.strip() == "/exit":
            return False
        if line.startswith(QUOTES):
            self.answer(self.read_block(line.removeprefix(QUOTES)))
        elif line.startswith("/"):
            self.command(*line.rstrip().partition(" ")[::2])
        elif line.strip():
            self.answer(line)
        return True

    def read_line(self, prompt: str) -> str | None:
        """The next line, None at the end of the input."""
        if self.terminal and sys.stdout.isatty():
            try:
                return input(prompt)
            except EOFError:
                notice("")
                return None
        if self.terminal and sys.stderr is not None:
            print(prompt, end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline(LONGEST_LINE)
        return line.removesuffix("\n") if line else None

    def read_block(self, text: str) -> str:
        """The rest of a message in triple quotes, whose first line this is."""
        while not text.rstrip().endswith(QUOTES):
            line = self.read_line(MORE)
            if line is None:
                raise NanollamaError(f"the input ended inside a message that began with {QUOTES}; it was not sent")
            text += f"\n{line}"
        return text.rstrip().removesuffix(QUOTES).strip("\n")

    def command(self, name: str, argument: str) -> None:
        """Run a command, which begins with a slash."""
        commands: dict[str, Callable[[str], None]] = {
            "/help": self.help,
            "/system": self.system,
            "/set": self.set,
            "/clear": self.clear,
            "/save": self.save,
            "/save!": self.overwrite,
            "/load": self.load,
        }
        if name not in commands:
            raise unknown_name("command", name, [*commands, "/exit"], "see /help")
        if argument.strip() and name in ("/help", "/clear"):
            raise NanollamaError(f"{name} takes nothing after it")
        if not argument.strip() and name in ("/save", "/save!", "/load"):
            raise NanollamaError(f"{name} needs the name of a file after it")
        commands[name](argument.strip())

    def help(self, _: str) -> None:
        """List the commands."""
        notice(HELP)

    def system(self, text: str) -> None:
        """Show, set or remove the system prompt; one that the template refuses changes nothing."""
        if text:
            system = None if text == "-" else text
            self.encode(Conversation(system).messages(newest="Hi"))
            self.conversation.system = system
        else:
            notice(self.conversation.system or "there is no system prompt")

    def set(self, text: str) -> None:
        """Show or change settings; a setting has the name of its field or of its option."""
        typed, _, value = text.partition(" ")
        names = {setting.flag.removeprefix("--").replace("-", "_"): name for name, setting in SETTINGS.items()}
        name = names.get(typed.replace("-", "_"), typed)
        if typed and name not in SETTINGS:
            raise unknown_name("setting", typed, SETTINGS)
        if not value.strip():
            for shown in [name] if typed else SETTINGS:
                notice(f"{shown} = {json.dumps(self.settings.get(shown, default(shown)))}")
            return
        with naming(f"/set {typed}"):
            self.settings[name] = default(name) if value.strip() == "default" else read_typed(name, value.strip())

    def clear(self, _: str) -> None:
        """Forget the turns."""
        self.conversation = Conversation(self.conversation.system)

    def save(self, name: str) -> None:
        """Write the conversation to a new file."""
        if os.path.lexists(file_path(name)):
            raise NanollamaError(f"{name} exists; /save! {name} replaces it")
        self.overwrite(name)

    def overwrite(self, name: str) -> None:
        """Write the conversation to a file, also over an existing one."""
        with new_file(name) as file:
            file.write(json.dumps(to_json(self.conversation), ensure_ascii=False, indent=1) + "\n")
        notice(f"{len(self.conversation.turns)} turns saved")

    def load(self, name: str) -> None:
        """Go on with a conversation from a file."""
        self.conversation = load_conversation(file_path(name))
        notice(f"{len(self.conversation.turns)} turns loaded")

    def encode(self, messages: list[Message]) -> list[int]:
        """The ids of a conversation, up to where the answer begins."""
        return self.lm.encode_chat(messages)

    def answer(self, text: str) -> None:
        """Answer one message and remember the turn; a message that was stopped before any answer is forgotten."""
        ids, answer = self.prompt(text), Answer()
        stopped = False
        try:
            for piece in self.lm.stream([make_request(ids, self.settings)], context=self.context):
                answer.add(piece)
                write(piece.text)
        except KeyboardInterrupt:
            if not self.terminal:
                raise
            stopped = True
        if not answer.text.endswith("\n"):
            write("\n")
        if stopped:
            notice("[stopped]" if answer.text else "[stopped before the answer began; the message is forgotten]")
        else:
            notice_end(answer, self.settings)
        if answer.text or not stopped:
            self.conversation.turns.append((text, answer.text))

    def prompt(self, text: str) -> list[int]:
        """The ids to answer. The answer's room is max_tokens, but at most a quarter of the context (decided here)."""
        wanted = self.settings.get("max_tokens")
        reserve = min(self.context // 4, self.context if wanted is None else wanted)
        before = self.conversation.dropped
        ids = self.conversation.fit(text, self.encode, self.context, reserve)
        if dropped := self.conversation.dropped - before:
            turns = "turn" if dropped == 1 else "turns"
            notice(f"[the context is full: the oldest {dropped} {turns} left out, {self.conversation.dropped} in all]")
        return ids
