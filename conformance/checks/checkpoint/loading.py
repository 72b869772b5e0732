"""Localises a fault of loading: each function of it is run on true inputs."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

import nanollama.checkpoint.names as names
import nanollama.checkpoint.safetensors as safetensors
from conformance.checks import Failed, compared, place_of
from conformance.checks.model.configured import config_faults, repaired
from conformance.truth.cases import Case
from conformance.truth.stored import module_tensors
from nanollama.model.config import ModelConfig, read_config
from nanollama.model.transformer import Transformer


def loading_faults(this: Case) -> list[Failed]:
    """The first faulty function of loading, in the order of execution; empty if all are right."""
    try:
        config = read_config(this.raw)
        found = config_faults(this.raw, config, this.spec)
        return found or list(weight_pieces(this, repaired(config, this.spec)))[:1]
    except Exception as error:
        return [Failed(place_of(error.__traceback__), f"{type(error).__name__}: {str(error)[:200]}")]


def weight_pieces(this: Case, config: ModelConfig) -> Iterator[Failed]:
    """Faults of bytes, names, splits, parameters and ties."""
    compared()
    read = safetensors.read_folder(this.folder)
    if not same_tensors(read, this.stored):
        yield Failed("checkpoint.safetensors.read_folder", "the tensors read are not those of the file")
    for name, tensor in this.stored.items():
        yield from name_faults(this, config, name, tensor)
    made = names.runtime_tensors(config, this.stored)
    wanted = {name: tensor for name, tensor in module_tensors(this.spec, this.stored).items() if made.get(name) is not None}
    if not same_tensors(made, wanted):
        yield Failed("checkpoint.names.runtime_tensors", "the parts are right, the whole is not")
    yield from skeleton_faults(this, config)
    left_out = {"lm_head.weight"} if this.spec.tied else set()
    tensors: dict[str, Any] = {name: tensor for name, tensor in this.truth.tensors.items() if name not in left_out}
    names.share_tied_head(config, tensors)
    if not same_tensors(tensors, this.truth.tensors):
        yield Failed("checkpoint.names.share_tied_head", "the head is not the embedding, or not the file's")
    names.check_counts(config, tensors)
    names.check_tensors({name: tensor.to("meta") for name, tensor in this.truth.tensors.items()}, tensors)


def name_faults(this: Case, config: ModelConfig, name: str, tensor: Tensor) -> Iterator[Failed]:
    """Faults of one stored tensor: its name in the runtime, its parts if it is fused."""
    one = {name: tensor} if not this.spec.tied else {"embed_tokens.weight": torch.zeros(0), name: tensor}
    wanted = module_tensors(this.spec, one)
    if this.spec.tied:
        wanted = {key: value for key, value in wanted.items() if value.numel()}
        wanted.pop("lm_head.weight", None)
    renamed = names.rename(config.family, name)
    if len(wanted) == 1 and [renamed] != list(wanted):
        yield Failed(f"checkpoint.names.rename: {without_layer(next(iter(wanted)))}", f"{name} becomes {renamed}")
    elif not same_tensors(dict(names.split(config, renamed, tensor)), wanted):
        place = "checkpoint.names.split"
        part = next(iter(wanted))
        if len(wanted) > 1 and ".".join(part.split(".")[:3]) != ".".join(renamed.split(".")[:3]):
            place = "checkpoint.names.rename"
        yield Failed(f"{place}: {without_layer(part)}", f"{name} is not taken apart into {', '.join(wanted)} as it should")


def skeleton_faults(this: Case, config: ModelConfig) -> Iterator[Failed]:
    """Faults in the parameters of this config's model."""
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in Transformer(config).state_dict().items()}
    wanted = {name: tuple(tensor.shape) for name, tensor in this.truth.tensors.items()}
    for name in [*wanted, *shapes]:
        if shapes.get(name) != wanted.get(name):
            detail = f"{name} has shape {shapes.get(name)}, and {wanted.get(name)} in the checkpoint"
            yield Failed(without_layer(name), detail)


def without_layer(name: str) -> str:
    """The module of a parameter, without layer and expert numbers."""
    return ".".join(part for part in name.split(".")[:-1] if part != "layers" and not part.isdigit())


def same_tensors(got: Mapping[str, Tensor], want: Mapping[str, Tensor]) -> bool:
    """Whether names, shapes and numbers are equal."""
    return got.keys() == want.keys() and all(
        got[name].shape == want[name].shape and torch.equal(got[name], want[name]) for name in want
    )


def loaded(this: Case, load: Callable[[], Transformer]) -> Transformer:
    """The model, or the fault that prevented its loading."""
    try:
        return load()
    except Exception as error:
        found = loading_faults(this)
        raise (found or [Failed(place_of(error.__traceback__), f"{type(error).__name__}: {str(error)[:200]}")])[0] from error
