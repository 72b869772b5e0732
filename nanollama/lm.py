"""A loaded language model: `load(source)` gives config, model, tokenizer and chat template, ready to generate."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nanollama.checkpoint.hub import resolve
from nanollama.checkpoint.source import Source, open_source
from nanollama.errors import NanollamaError
from nanollama.generation.loop import generate
from nanollama.generation.request import Piece, Request
from nanollama.generation.sampling import SamplingParams
from nanollama.kernels.linear import keep_freed_memory
from nanollama.model.config import ModelConfig
from nanollama.model.transformer import Transformer
from nanollama.quant.modules import keep_resident, use_quantized
from nanollama.quant.quant_tensor import QuantTensor
from nanollama.quant.weight_only import quantize_model
from nanollama.text.chat.encode import encode_chat
from nanollama.text.chat.template import ChatTemplate, load_template
from nanollama.text.llamacpp.vocabulary import gguf_end_ids, load_gguf_template, load_gguf_tokenizer
from nanollama.text.tokenizer import Tokenizer, load_tokenizer

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
RESIDENT = 2 / 3  # of the bytes of quantized weights; the rest is mapped anew at each use (quant/pages.py)


@dataclass(frozen=True)
class LM:
    """A model and what it needs to read and write text. `tokenizer` and `template` are None where the folder has none."""

    config: ModelConfig
    model: Transformer
    tokenizer: Tokenizer | None
    template: ChatTemplate | None

    def generate(
        self, prompt: str, *, max_tokens: int | None = None, stop: Sequence[str] = (), **sampling: Any
    ) -> Iterator[str]:
        """Continue a text, piece by piece. `sampling` are the fields of SamplingParams, such as temperature and seed."""
        return self._texts(self.encode(prompt), max_tokens, stop, sampling)

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
        tools: Sequence[Mapping[str, Any]] | None = None,
        **sampling: Any,
    ) -> Iterator[str]:
        """Answer a conversation of {"role", "content"} dicts, piece by piece."""
        return self._texts(self.encode_chat(messages, tools=tools), max_tokens, stop, sampling)

    def encode(self, prompt: str, *, parse_special: bool = False) -> list[int]:
        """The ids of a text, with the tokens that the model's own files put in front."""
        return self._tokenizer().encode(prompt, parse_special=parse_special)

    def encode_chat(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> list[int]:
        """The ids of a conversation by the checkpoint's chat template; options are those of `ChatTemplate.render`."""
        if self.template is None:
            raise NanollamaError("this checkpoint has no chat template, so it can't chat; give it a prompt to continue instead")
        return encode_chat(self._tokenizer(), self.template, messages, add_bos=True, **options)

    def stream(self, requests: Sequence[Request], **options: Any) -> Iterator[Piece]:
        """The generation loop over this model: every piece of every request, with ids, finish reasons and usage."""
        return generate(self.model, self.tokenizer, requests, **options)

    def compile(self) -> None:
        """Compile every layer with torch.compile; the first call of each shape then takes long."""
        for layer in self.model.layers:
            layer.compile()

    def _texts(self, ids: list[int], max_tokens: int | None, stop: Sequence[str], sampling: Mapping[str, Any]) -> Iterator[str]:
        unknown = sampling.keys() - SamplingParams.__dataclass_fields__.keys()
        if unknown:
            known = ", ".join(SamplingParams.__dataclass_fields__)
            raise NanollamaError(f"no sampling parameter {sorted(unknown)[0]!r}; there are {known}")
        request = Request(ids, SamplingParams(**sampling), max_tokens, stop)
        return (piece.text for piece in self.stream([request]))

    def _tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise NanollamaError(
                "this checkpoint has no tokenizer; expected tokenizer.json, tokenizer.model, or vocab.json with merges.txt"
            )
        return self.tokenizer


def load(source: str | Path, dtype: str = "auto", device: str = "auto", quantize: str | None = None) -> LM:
    """Load a checkpoint: a folder, a GGUF file, or a hub id "org/name", which is downloaded once.

    dtype: "auto" (as stored), "float64", "float32", "bfloat16", "float16". device: "auto", "cpu", "cuda", "mps". quantize:
    None (as stored), "q8" or "q4": round the matrices to 8 or 4 bits and keep them so (quant/own.py).
    Raises NanollamaError for whatever is missing, damaged or not supported, by name.
    """
    opened = open_source(resolve(str(source)))
    tokenizer, template = load_text(opened)
    model = build_model(opened, dtype, device, quantize)
    if opened.gguf is not None:
        ends = gguf_end_ids(opened.gguf.metadata)  # more than the file names: llama.cpp knows some by their text
        model.config = replace(model.config, eos_token_ids=ends or model.config.eos_token_ids)
    if not model.config.eos_token_ids and tokenizer is not None and tokenizer.eos_id is not None:
        model.config = replace(model.config, eos_token_ids=(tokenizer.eos_id,))  # config.json names none: the tokenizer's
    return LM(model.config, model, tokenizer, template)


def load_text(source: Source) -> tuple[Tokenizer | None, ChatTemplate | None]:
    """Tokenizer and chat template of a checkpoint, each None where it has none."""
    if source.gguf is not None:
        return load_gguf_tokenizer(source.gguf.metadata), load_gguf_template(source.gguf.metadata)
    has_tokenizer = any((source.path / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json"))
    return load_tokenizer(source.path) if has_tokenizer else None, load_template(source.path)


def load_model(path: Path, dtype: str = "auto", device: str = "auto", quantize: str | None = None) -> Transformer:
    """The model of a checkpoint. Weights stay memory-mapped where dtype and device are those of the file, blocks always."""
    return build_model(open_source(path), dtype, device, quantize)


def build_model(source: Source, dtype: str = "auto", device: str = "auto", quantize: str | None = None) -> Transformer:
    """The model of an opened checkpoint."""
    target = pick_device(device)
    if target.type == "cpu":
        keep_freed_memory()
    wanted, tensors = pick_dtype(dtype, source, target), source.tensors
    tied = tensors["lm_head.weight"] is tensors["embed_tokens.weight"]
    blocks = {name: tensor.to(target) for name, tensor in tensors.items() if isinstance(tensor, QuantTensor)}
    state = {
        name: tensor.to(target, wanted)
        for name, tensor in tensors.items()
        if isinstance(tensor, Tensor) and not (tied and name == "lm_head.weight")
    }
    if tied:  # one tensor, not two equal ones
        shared: dict[str, Any] = state if "embed_tokens.weight" in state else blocks
        shared["lm_head.weight"] = shared["embed_tokens.weight"]
    model = source.skeleton()
    use_quantized(model, keep_resident(blocks, RESIDENT), wanted)
    model.load_state_dict(state, assign=True)
    if quantize is not None:
        quantize_model(model, quantize)
    return model.eval()


def pick_dtype(dtype: str, source: Source, device: torch.device) -> torch.dtype:
    """ "auto" is what config.json states, else what the file holds; with weights in blocks float32, as they are decoded."""
    if dtype == "auto":
        embedding = source.tensors["embed_tokens.weight"]
        stored = torch.float32 if source.is_quantized or isinstance(embedding, QuantTensor) else embedding.dtype
        dtype = source.config.dtype or str(stored).removeprefix("torch.")
    if dtype not in DTYPES:
        raise NanollamaError(f"dtype {dtype!r} is not known; known: auto, {', '.join(DTYPES)}")
    if device.type == "mps" and dtype == "float64":
        raise NanollamaError("float64 does not exist on mps; use float32, or the cpu")
    return DTYPES[dtype]


def pick_device(device: str) -> torch.device:
    """ "auto" is cuda, else mps, else the cpu."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        device = next(name for name in ("cuda", "mps", "cpu") if there[name])
    kind = device.partition(":")[0]
    if kind not in there:
        raise NanollamaError(f"device {device!r} is not known; known: auto, cpu, cuda, mps")
    if not there[kind]:
        raise NanollamaError(f"device {device!r} was asked for, but torch sees none here; use auto or cpu")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise NanollamaError(f"device {device!r} is not a device name; expected cpu, cuda, cuda:1, mps") from error
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if (place.index or 0) >= count:
        raise NanollamaError(f"device {device!r} does not exist; there are {count} of that kind, numbered from 0")
    return place
