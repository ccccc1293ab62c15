"""What a fit is compared with: the best errors that other families reach with as many parameters.

Every baseline is a file with one function of the signature `Baseline`, and a line in `BASELINES`; one whose best member
is known in a weighted norm as well has a line in `WEIGHTED_BASELINES`, and takes the inputs as a third argument. It
answers for the *best case* of a family: a fine-tuning method that trains a member of it can come no nearer to the
matrix, whatever the training. Only trained numbers count as parameters, of the dtype of the matrix (one complex number
is one parameter of a complex matrix); indices and permutations are free. The error never rises with the number of
parameters, and is zero for a member. Where a family has no member with so few parameters, the answer is the zero
matrix: no parameters, error one.

- `baseline_errors`: the public functions
- `truncated_svd`, `block_circulant`, `sparse_fourier`, `monarch`: one family each
- `nearest`: the nearest circulant and diagonal matrices, whatever their parameters
- `member`: what baselines answer and share
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from structmat.fit._baselines.block_circulant import block_circulant
from structmat.fit._baselines.monarch import monarch
from structmat.fit._baselines.sparse_fourier import sparse_fourier
from structmat.fit._baselines.truncated_svd import truncated_svd

if TYPE_CHECKING:
    from structmat.fit._baselines.member import Baseline, Member

__all__ = ["BASELINES", "WEIGHTED_BASELINES"]

BASELINES: dict[str, Baseline] = {
    "truncated-svd": truncated_svd,
    "block-circulant": block_circulant,
    "sparse-fourier": sparse_fourier,
    "monarch": monarch,
}
"""The families by name."""

WEIGHTED_BASELINES: dict[str, Callable[..., list[Member]]] = {
    "truncated-svd": truncated_svd,
}
"""Those whose best member is known in a weighted norm: with the inputs as a third argument."""
