"""Whether gradient checkpointing computes a forward pass again now, in a backward pass."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import torch

__all__ = ["checkpointing_node", "is_computed_again", "is_in_backward"]


def is_in_backward() -> bool:
    """Return whether a backward pass is running in this thread."""
    return torch._C._current_graph_task_id() != -1


def is_computed_again() -> bool:
    """Return whether gradient checkpointing computes a forward pass again, in a backward pass.

    A plain call in a hook of the backward pass is none: that has no function of checkpointing around it.
    """
    return not torch.compiler.is_compiling() and is_in_backward() and _checkpointing_frame() is not None


def _checkpointing_frame() -> FrameType | None:
    """Return the innermost frame of a module of checkpointing that this is called from: torch's, or another one's."""
    # A file of this package whose name says "checkpoint" would be found too.
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and "checkpoint" not in frame.f_code.co_filename.rpartition("/")[2]:
        frame = frame.f_back
    return frame


def checkpointing_node() -> Any:
    """Return the node of a reentrant checkpoint that is computed without a graph now; None outside of one."""
    frame = _checkpointing_frame()
    return None if frame is None else frame.f_locals.get("ctx")
