"""A batch whose samples have adapters of their own: names handed to every layer for the while of a forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn

from structmat._array_tools import ArgumentTypeError, ArgumentValueError
from structmat.peft._tuner_layer import CDDTunerLinear

__all__ = ["names_per_sample"]

_BASE = "__base__"
"""PEFT's name for "no adapter"."""


@contextmanager
def names_per_sample(tuner: nn.Module, names: Any, options: Mapping[str, Any]) -> Iterator[None]:
    """Hand the names of adapters, one for each sample, to all layers of a tuner's model within a ``with`` block.

    `options` are those of the model's forward pass or of generation, which may repeat samples.
    """
    if tuner.training:
        raise ArgumentValueError("CDDModel", None, "Cannot pass `adapter_names` when the model is in training mode.")
    if not isinstance(names, (list, tuple)):
        raise ArgumentTypeError("CDDModel", None, f"Got adapter names of type {type(names)}, expected a list of str.")
    layers = [module for module in tuner.modules() if isinstance(module, (CDDTunerLinear, AuxiliaryTrainingWrapper))]
    known = {_BASE}.union(*(layer.cdd_adapters for layer in layers if isinstance(layer, CDDTunerLinear)))
    if unknown := set(names) - known:
        raise ArgumentValueError(
            "CDDModel", None, f"Trying to infer with non-existing adapter(s): {', '.join(sorted(unknown))}"
        )
    beams = options.get("num_beams")
    repeats = beams if isinstance(beams, int) and beams > 1 else 1
    # Beam search repeats each sample, but for the encoder of encoder-decoder models, which runs before.
    inside = {module for encoder in _encoders(tuner.model) for module in encoder.modules()}
    handles = []
    try:
        for layer in layers:
            own = list(names) if layer in inside else [name for name in names for _ in range(repeats)]
            handles.append(layer.register_forward_pre_hook(partial(_with_names, own), with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _with_names(names: Sequence[str], _: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return args, {**kwargs, "adapter_names": names}


def _encoders(model: nn.Module) -> list[nn.Module]:
    """Return the encoder of an encoder-decoder model; others answer with themselves, or not at all."""
    encoder = model.get_encoder() if hasattr(model, "get_encoder") else None
    return [encoder] if isinstance(encoder, nn.Module) and encoder is not model else []
