"""Files: operators and fits in safetensors, matrices from files of NumPy, MATLAB, text and safetensors; never pickle.

- `_operators`: `save`, `load` and `describe`
- `_matrices`: `load_matrix`
"""

from __future__ import annotations

from structmat.io._matrices import load_matrix
from structmat.io._operators import describe, load, save

__all__ = ["describe", "load", "load_matrix", "save"]
