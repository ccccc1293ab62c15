"""Names of modules without what wrapping classes add to them."""

from __future__ import annotations

import re

__all__ = ["unwrapped"]

_WRAPPERS = re.compile(r"(?:^|\.)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?=\.|$)")
"""Parts of paths that `torch.compile`, FSDP and checkpoints of activations add."""


def unwrapped(name: str) -> str:
    """Return the path of a module or the name of a weight in the model itself."""
    return _WRAPPERS.sub("", name).removeprefix(".")
