"""Files: operators and fits in safetensors, matrices from ``.npy``, ``.npz`` and ``.safetensors``. Never pickle.

- `_operators`: `save` and `load`, the tree of operators as JSON
- `_matrices`: `load_matrix`
- `_describe`: `describe`, what a file holds
- `_safetensors`: the file format; the only file that imports safetensors
- `_atomic`: `atomic_write` and `check_output`, for every file that structmat writes
"""

from __future__ import annotations

from structmat.io._atomic import atomic_write, check_output
from structmat.io._describe import describe
from structmat.io._matrices import load_matrix
from structmat.io._operators import load, save

__all__ = ["atomic_write", "check_output", "describe", "load", "load_matrix", "save"]
