"""`StackedCDDAdapter`: the trainable changes of the matrices of experts that one parameter holds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from structmat._arguments import integer
from structmat._errors import ArgumentValueError
from structmat.fit import FitResult
from structmat.torch._adapters.adapter import CDDAdapter, require_floating
from structmat.torch._changes.experts import stacked_change

__all__ = ["StackedCDDAdapter"]


class StackedCDDAdapter(CDDAdapter):
    """The trainable changes of several matrices of one size: alpha times a product D C D of its own for each expert.

    Parameters
    ----------
    n_experts : int
        The number of matrices, at least 1.
    in_features, out_features : int
        Columns and rows of one of them.
    **options
        Those of `CDDAdapter`: `n_factors`, `block_size`, `alpha`, `init`, `dropout`, `factor_scale`, `dtype`, `device`.

    Raises
    ------
    ValueError
        If a size or an option has a wrong value.
    TypeError
        If one is of another kind.

    See Also
    --------
    CDDExperts : A module of experts with such changes.
    CDDAdapter : The change of one matrix.

    Notes
    -----
    `layout` and `scales` are those of one change; `vectors` and `factors` have the experts on their first axis, and so
    have `dense`, `operator` and what `fit_` takes.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import StackedCDDAdapter
    >>> changes = StackedCDDAdapter(8, 6, 4, init="normal")
    >>> changes.n_parameters, changes(torch.ones(8, 2, 6)).shape
    (144, torch.Size([8, 2, 4]))
    >>> changes.dense().shape
    torch.Size([8, 4, 6])
    """

    n_experts: int
    """The number of matrices."""

    def __init__(self, n_experts: int, in_features: int, out_features: int, **options: Any) -> None:
        self.n_experts = integer(n_experts, "StackedCDDAdapter", "n_experts")
        super().__init__(in_features, out_features, **options)

    @property
    def vector_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of the vectors, with the experts on the first axis."""
        return tuple((self.n_experts, *shape) for shape in self.layout.vector_shapes)

    @property
    def n_parameters(self) -> int:
        """The number of trainable entries, of all experts."""
        return self.n_experts * self.layout.n_parameters

    def fit_(self, delta: Tensor) -> FitResult:
        """Set the vectors of each expert to those of a fit of its dense change, by `structmat.fit_cdd`.

        Parameters
        ----------
        delta : Tensor, shape (n_experts, out_features, in_features)
            What to approximate, `alpha` included.

        Returns
        -------
        FitResult
            That of the expert with the largest relative error; also kept as `fit`.

        Raises
        ------
        ValueError
            If the shape differs, an entry is not finite, or the vectors or `delta` are on the device meta.
        TypeError
            If `delta` is no real tensor.
        RuntimeError
            If `alpha` is 0.
        """
        shape = (self.n_experts, self.out_features, self.in_features)
        if not isinstance(delta, Tensor) or tuple(delta.shape) != shape:
            given = tuple(delta.shape) if isinstance(delta, Tensor) else type(delta).__name__
            raise ArgumentValueError("StackedCDDAdapter", "delta", f"must have shape {shape}, got {given}")
        single = CDDAdapter(**super().options(), dtype=torch.float64, device="cpu")
        fits, factors = [], []
        for each in delta:
            fits.append(single.fit_(each))
            factors.append(single.factors)
        like = self.vectors[0]
        self.factors = [torch.stack(each).detach().to(like) for each in zip(*factors, strict=True)]
        self.fit = max(fits, key=lambda fit: float(fit.error))
        return self.fit

    def add_to(self, y: Tensor, x: Tensor) -> Tensor:
        """Return `y` plus the changes of the rows of `x`.

        Parameters
        ----------
        y : Tensor, shape (n_experts, ..., out_features)
            Not changed; its dtype is that of the result.
        x : Tensor, shape (n_experts, ..., in_features)
            Inputs of the experts.

        Returns
        -------
        Tensor, shape (n_experts, ..., out_features)
            The sum.

        Raises
        ------
        ValueError
            If `x` or `y` has another shape.
        TypeError
            If `x` is of no floating dtype.
        """
        require_floating("StackedCDDAdapter", x)
        ends = (self.n_experts, self.in_features)
        if x.ndim < 2 or (x.shape[0], x.shape[-1]) != ends or y.shape != (*x.shape[:-1], self.out_features):
            raise ArgumentValueError(
                "StackedCDDAdapter",
                None,
                f"x must have shape {(self.n_experts, '...', self.in_features)} and y "
                f"{(self.n_experts, '...', self.out_features)}, got {tuple(x.shape)} and {tuple(y.shape)}",
            )
        rows = self.dropped(x).reshape(-1, self.in_features)
        each = x[0].numel() // self.in_features
        ends_of_rows = torch.arange(each, (self.n_experts + 1) * each, each, device=x.device) if each else None
        # No rows; the inputs stay in the graph, so that they have a gradient.
        if ends_of_rows is None:
            return y + 0 * x.sum()
        flat = y.reshape(-1, self.out_features)
        return stacked_change(flat, rows, ends_of_rows, self.vectors.forward(), self.gain).reshape(y.shape)

    def options(self) -> dict[str, Any]:
        """Return the options with which another adapter can take over the vectors.

        Returns
        -------
        dict
            Arguments of `StackedCDDAdapter` except dtype, device and init.
        """
        return {"n_experts": self.n_experts, **super().options()}
