"""Weights of a model, in memory or in a folder, read one by one."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

__all__ = ["Checkpoint"]


class Checkpoint:
    """Weights by name; names may lack, or have more of, the leading parts that wrapping classes add."""

    def __init__(self, source: str | Path | nn.Module) -> None:
        self.source = source
        self._tensors: dict[str, Tensor] = {}
        self._files: dict[str, Path] = {}
        if isinstance(source, nn.Module):
            self._tensors = dict(source.state_dict())
            return
        folder = Path(source)
        found = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("*.safetensors"))
        if not found:
            raise ValueError(f"{folder} is no folder with safetensors files of a model")
        for path in found:
            try:
                with safe_open(path, framework="pt") as file:
                    self._files |= dict.fromkeys(file.keys(), path)
            except SafetensorError as error:
                raise ValueError(f"{path} is no safetensors file or is cut short: {error}") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors or self._files)

    def find(self, name: str) -> str | None:
        """Return the stored name that fits a name, if there is one."""
        known = self._tensors or self._files
        if name in known:
            return name
        fits = [key for key in known if key.endswith(f".{name}") or name.endswith(f".{key}")]
        return fits[0] if len(fits) == 1 else None

    def __getitem__(self, name: str) -> Tensor:
        key = self.find(name)
        if key is None:
            raise ValueError(f"{self._label()} has no weight {name}")
        if self._tensors:
            return self._tensors[key].detach()
        with safe_open(self._files[key], framework="pt") as file:
            return file.get_tensor(key)

    def _label(self) -> str:
        return type(self.source).__name__ if isinstance(self.source, nn.Module) else str(self.source)

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


def _without_values(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
