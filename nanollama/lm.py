"""A loaded language model: `load(source)` gives config, model, tokenizer and chat template, ready to generate."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from nanollama.checkpoint.build import build_model
from nanollama.checkpoint.hub import resolve
from nanollama.checkpoint.source import Source, open_source
from nanollama.errors import NanollamaError
from nanollama.generation.loop import generate
from nanollama.generation.request import GenerationDefaults, Piece, Request
from nanollama.generation.sampling import SamplingParams
from nanollama.model.config import ModelConfig
from nanollama.model.transformer import Transformer
from nanollama.text.chat.encode import encode_chat
from nanollama.text.chat.template import ChatTemplate, load_template
from nanollama.text.llamacpp.vocabulary import gguf_end_ids, load_gguf_template, load_gguf_tokenizer
from nanollama.text.tokenizer import Tokenizer, load_tokenizer


@dataclass(frozen=True)
class LM:
    """A model and what it needs to read and write text. `tokenizer` and `template` are None if the checkpoint has none."""

    model: Transformer
    tokenizer: Tokenizer | None
    template: ChatTemplate | None
    defaults: GenerationDefaults

    @property
    def config(self) -> ModelConfig:
        """The config of the model."""
        return self.model.config

    def generate(
        self,
        prompt: str,
        *,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
        stop_ids: Iterable[int] = (),
        ignore_eos: bool = False,
        context: int | None = None,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        typical_p: float = 1.0,
        repetition_penalty: float = 1.0,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        penalty_window: int = -1,
        logit_bias: Mapping[int, float] | None = None,
        seed: int | None = None,
    ) -> Iterator[str]:
        """Continue a text, piece by piece.

        The parameters are the fields of `Request` and `SamplingParams`, and `context` of the generation loop.
        Raises NanollamaError for a value out of range and for a prompt that does not fit the context.
        """
        params = SamplingParams(
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            typical_p=typical_p,
            repetition_penalty=repetition_penalty,
            presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty,
            penalty_window=penalty_window,
            logit_bias={} if logit_bias is None else logit_bias,
            seed=seed,
        )
        return self._texts(Request(self.encode(prompt), params, max_tokens, stop, stop_ids, ignore_eos), context)

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
        stop_ids: Iterable[int] = (),
        ignore_eos: bool = False,
        context: int | None = None,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        typical_p: float = 1.0,
        repetition_penalty: float = 1.0,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        penalty_window: int = -1,
        logit_bias: Mapping[int, float] | None = None,
        seed: int | None = None,
    ) -> Iterator[str]:
        """Answer a conversation of {"role", "content"} dicts, piece by piece; parameters and errors as in `generate`."""
        params = SamplingParams(
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            typical_p=typical_p,
            repetition_penalty=repetition_penalty,
            presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty,
            penalty_window=penalty_window,
            logit_bias={} if logit_bias is None else logit_bias,
            seed=seed,
        )
        ids = self.encode_chat(messages, tools=tools)
        return self._texts(Request(ids, params, max_tokens, stop, stop_ids, ignore_eos), context)

    def encode(self, prompt: str, *, parse_special: bool = False) -> list[int]:
        """The ids of a text, with the tokens that the model's own files put in front."""
        return self._tokenizer().encode(prompt, parse_special=parse_special)

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        parse_content: bool = False,
        **options: Any,
    ) -> list[int]:
        """The ids of a conversation by the checkpoint's chat template.

        parse_content: special tokens spelled in the content count as such. options: others of `ChatTemplate.render`, and
        variables of the template.
        """
        if self.template is None:
            raise NanollamaError("this checkpoint has no chat template, so it can't chat; give it a prompt to continue instead")
        options |= {"tools": tools, "parse_content": parse_content}
        return encode_chat(self._tokenizer(), self.template, messages, add_bos=True, **options)

    def stream(
        self,
        requests: Sequence[Request],
        *,
        context: int | None = None,
        prefill_chunk: int = 512,
        forward: Callable[..., Tensor] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> Iterator[Piece]:
        """The generation loop over this model: every piece of every request, with ids, finish reasons and usage."""
        return generate(
            self.model,
            self.tokenizer,
            requests,
            defaults=self.defaults,
            context=context,
            prefill_chunk=prefill_chunk,
            forward=forward,
            clock=clock,
        )

    def compile(self) -> None:
        """Compile every layer with torch.compile; the first call of each shape then takes long."""
        for layer in self.model.layers:
            layer.compile()

    def _texts(self, request: Request, context: int | None) -> Iterator[str]:
        return (piece.text for piece in self.stream([request], context=context))

    def _tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise NanollamaError(
                "this checkpoint has no tokenizer; expected tokenizer.json, tokenizer.model, or vocab.json with merges.txt"
            )
        return self.tokenizer


def load(source: str | Path, dtype: str = "auto", device: str = "auto", quantize: str | None = None) -> LM:
    """Load a checkpoint: a folder, a GGUF file, or a hub id "org/name", which is downloaded once.

    dtype: "auto" (as stored), "float64", "float32", "bfloat16", "float16". device: "auto", "cpu", "cuda", "mps". quantize:
    None (as stored), "q8" or "q4": round the matrices to 8 or 4 bits and keep them so (quant/weight_only.py).
    Raises NanollamaError for whatever is missing, damaged or not supported, by name.
    """
    opened = open_source(resolve(str(source)))
    tokenizer, template = load_text(opened)
    return LM(build_model(opened, dtype, device, quantize), tokenizer, template, generation_defaults(opened, tokenizer))


def load_text(source: Source) -> tuple[Tokenizer | None, ChatTemplate | None]:
    """Tokenizer and chat template of a checkpoint, each None if it has none."""
    if source.gguf is not None:
        return load_gguf_tokenizer(source.gguf.metadata), load_gguf_template(source.gguf.metadata)
    has_tokenizer = any((source.path / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json"))
    return load_tokenizer(source.path) if has_tokenizer else None, load_template(source.path)


def generation_defaults(source: Source, tokenizer: Tokenizer | None) -> GenerationDefaults:
    """The ids that begin and end a text: those of the config files or the GGUF file, else the tokenizer's end token."""
    ends = source.eos_token_ids
    if source.gguf is not None:
        ends = gguf_end_ids(source.gguf.metadata) or ends  # more than the file names: llama.cpp knows some by their text
    if not ends and tokenizer is not None and tokenizer.eos_id is not None:
        ends = (tokenizer.eos_id,)
    return GenerationDefaults(source.bos_token_id, ends)


def load_model(path: Path, dtype: str = "auto", device: str = "auto", quantize: str | None = None) -> Transformer:
    """The model of a checkpoint. Weights stay memory-mapped if dtype and device are those of the file, blocks always."""
    return build_model(open_source(path), dtype, device, quantize)
