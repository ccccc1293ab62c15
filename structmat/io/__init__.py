"""Files: operators and fits in safetensors, matrices from ``.npy``, ``.npz`` and ``.safetensors``, weights of models.

Never pickle that could run code.

- `_operators`: `save` and `load`
- `_tree`: operators and fits as JSON
- `_matrices`: `load_matrix`
- `_describe`: `describe`, what a file holds
- `_checkpoint`: `Checkpoint`, the weights of a model, read piece by piece
- `_entry`: `Entry`, one of these weights, and the files that were opened for them
- `_names`: which names of two checkpoints mean the same weight
- `_torch_files`: files of `torch.save`; the only file that imports torch
"""

from __future__ import annotations

from structmat._files.atomic import atomic_write, check_output
from structmat.io._checkpoint import Checkpoint
from structmat.io._describe import describe
from structmat.io._entry import CheckpointError, Entry
from structmat.io._matrices import load_matrix
from structmat.io._operators import load, save

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Entry",
    "atomic_write",
    "check_output",
    "describe",
    "load",
    "load_matrix",
    "save",
]
