"""Weights of a model, in memory or in a folder, read one by one."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from structmat import io
from structmat._files.safetensors import Tensor as Stored

__all__ = ["Checkpoint"]

_FLOAT8 = {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}
"""Codes of safetensors that NumPy has no dtype for, and their names in torch."""


class Checkpoint:
    """Weights by name; names may lack, or have more of, the leading parts that wrapping classes add."""

    def __init__(self, source: str | Path | nn.Module) -> None:
        self.source = source
        if isinstance(source, nn.Module):
            self._weights = io.Checkpoint.in_memory(source.state_dict(), type(source).__name__)
            return
        self._weights = io.Checkpoint(source)
        for fault in (*self._weights.broken.values(), *self._weights.faults.values()):
            raise io.CheckpointError(fault)

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def find(self, name: str) -> str | None:
        """Return the stored name that fits a name, if there is one."""
        return self._weights.find(name)

    def __getitem__(self, name: str) -> Tensor:
        return _as_torch(self._weights.entry(name).raw())

    def differing(self, other: Checkpoint, covered: Sequence[str]) -> Iterator[str]:
        """Yield the names of weights here that are others there, but for those covered."""
        inside = {self.find(name) for name in covered}
        for key in self:
            if key not in inside:
                theirs = other.find(key)
                if theirs is None or not torch.equal(self[key].cpu(), other[theirs].cpu()):
                    yield key

    def skeleton(self) -> nn.Module:
        """Return the model without values; of a folder, the class that its config.json names."""
        if isinstance(self.source, nn.Module):
            tensors = [*self.source.parameters(), *self.source.buffers()]
            memo = {id(t): _without_values(t) for t in tensors}
            return copy.deepcopy(self.source, memo)
        import transformers  # noqa: PLC0415 - models in memory need not be of transformers

        config = transformers.AutoConfig.from_pretrained(self.source)
        names = config.architectures or []
        cls = next((getattr(transformers, name) for name in names if hasattr(transformers, name)), None)
        if cls is None:
            raise ValueError(f"{self.source}: transformers has no class {', '.join(names) or 'named in config.json'}")
        with torch.device("meta"):
            return cls(config)


def _as_torch(stored: Stored) -> Tensor:
    """Return a weight with the dtype that it has in the file."""
    dtype = getattr(torch, _FLOAT8.get(stored.code, stored.dtype), None)
    if dtype is None:
        raise ValueError(f"torch has no dtype {stored.dtype}")
    if not stored.data:
        return torch.empty(stored.shape, dtype=dtype)
    return torch.frombuffer(bytearray(stored.data), dtype=dtype).reshape(stored.shape)


def _without_values(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
