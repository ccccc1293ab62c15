"""`CDDAdapter`: the trainable change of one layer."""

from __future__ import annotations

import math
from typing import Any, get_args

import torch
from torch import Tensor, nn

from structmat._arrays.arrays import positive_index
from structmat.fit import FitResult
from structmat.fit._many_factors.block_objective import BlockLayout, block_layout
from structmat.operators import CDDProduct
from structmat.torch._change.add_change import Mode, add_change
from structmat.torch._layers.initial_values import INITS, Init, fitted_vectors, initialise

__all__ = ["CDDAdapter"]


class CDDAdapter(nn.Module):
    """The trainable change of one layer: alpha times a product D C D of diagonals and block circulants, or longer.

    Parameters
    ----------
    in_features, out_features : int
        Columns and rows of the change.
    n_factors : int, default 3
        Odd and at least 3. With more, one block circulant has the shape of the change and every further one is square,
        with its smaller side.
    block_size : int, optional
        Side of the circulants; any, the last blocks are cropped. Default: the smaller of the two features, which is
        the fastest and takes the fewest parameters.
    alpha : float, default 1.0
        What the product is multiplied by; not trained.
    init : {"zero", "normal", "gradient"}, default "zero"
        See `reset_parameters`.
    gradient : Tensor, shape (out_features, in_features), optional
        For ``init="gradient"``.
    mode : {"lean", "fast"}, default "lean"
        Whether the backward pass computes transforms again, or keeps them: two thirds of the transforms, and for each
        circulant of a square change twice the memory of the layer's input on top.
    dtype, device : optional
        Of the vectors, as everywhere in torch.

    Raises
    ------
    ValueError
        If a size, `n_factors`, `alpha`, `init` or `mode` is none of the above.

    Notes
    -----
    Three factors have ``rows + ceil(rows / b) ceil(cols / b) b + cols`` parameters: 3 n for a square. The product costs
    O(n log n) a row. Half-precision inputs are computed in float32.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import CDDAdapter
    >>> change = CDDAdapter(6, 4, init="normal")
    >>> change.n_parameters, change(torch.ones(2, 6)).shape
    (18, torch.Size([2, 4]))
    >>> change.operator().shape
    (4, 6)
    """

    factors: nn.ParameterList
    """The vectors: diagonals (m,) and grids of circulants (p, q, b), in the order of the product."""
    fit: FitResult | None
    """How well a given change was met, if there was one."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        n_factors: int = 3,
        block_size: int | None = None,
        alpha: float = 1.0,
        init: Init = "zero",
        gradient: Tensor | None = None,
        mode: Mode = "lean",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.in_features = positive_index(in_features, "CDDAdapter: in_features")
        self.out_features = positive_index(out_features, "CDDAdapter: out_features")
        n_factors = positive_index(n_factors, "CDDAdapter: n_factors")
        if n_factors < 3 or n_factors % 2 == 0:
            raise ValueError(f"CDDAdapter: n_factors must be odd and at least 3, got {n_factors}")
        smaller = min(self.in_features, self.out_features)
        self.block_size = smaller if block_size is None else positive_index(block_size, "CDDAdapter: block_size")
        if mode not in get_args(Mode):
            raise ValueError(f'CDDAdapter: mode must be "lean" or "fast", got {mode!r}')
        if dtype is not None and not dtype.is_floating_point:
            raise ValueError(f"CDDAdapter: dtype must be a floating dtype, got {dtype}")
        if not math.isfinite(alpha):
            raise ValueError(f"CDDAdapter: alpha must be finite, got {alpha}")
        self.alpha, self.mode, self.fit = float(alpha), mode, None
        self.factors = nn.ParameterList(
            torch.empty(shape, dtype=dtype, device=device) for shape in self._layout(n_factors).vector_shapes
        )
        self.reset_parameters(init, gradient=gradient)

    def _layout(self, n_factors: int) -> BlockLayout:
        return block_layout((self.out_features, self.in_features), self.block_size, n_factors)

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Rows and columns of each factor."""
        return self._layout(self.n_factors).shapes

    @property
    def n_factors(self) -> int:
        """The number of factors."""
        return len(self.factors)

    @property
    def n_parameters(self) -> int:
        """The number of trainable entries."""
        return sum(factor.numel() for factor in self.factors)

    def reset_parameters(
        self, init: Init = "zero", *, gradient: Tensor | None = None, generator: torch.Generator | None = None
    ) -> None:
        """Start anew.

        Parameters
        ----------
        init : {"zero", "normal", "gradient"}, default "zero"
            "zero": the change is exactly zero and trains at once; its first diagonal is zero, the other diagonals are
            random signs, circulants are normal with variance 1 / columns. "normal": random signs in the first diagonal
            too, which keeps the variance of the input: for layers trained from scratch. "gradient": as "zero", but the
            other factors are those of the product nearest to the gradient, so that the first step follows it best.
        gradient : Tensor, shape (out_features, in_features), optional
            Of the loss with respect to the layer's weight, for "gradient".
        generator : torch.Generator, optional
            Source of random numbers. Default: torch's own.

        Raises
        ------
        ValueError
            If `init` is none of the above, or `gradient` is missing, of another shape, or not finite.
        """
        if init not in INITS:
            raise ValueError(f"CDDAdapter: init must be one of {', '.join(INITS)}, got {init!r}")
        if (init == "gradient") != (gradient is not None):
            raise ValueError('CDDAdapter: init="gradient" and gradient= go together')
        self._check_change(gradient, "gradient")
        cols = [size[1] for size in self.shapes]
        initialise(list(self.factors), init, cols, gradient=gradient, generator=generator)

    def fit_(self, change: Tensor) -> FitResult:
        """Set the vectors to those of the best fit of a dense change, by `structmat.fit_cdd`.

        Parameters
        ----------
        change : Tensor, shape (out_features, in_features)
            What to approximate, `alpha` included.

        Returns
        -------
        FitResult
            With the relative error; also kept as `fit`. Weight changes are rarely close to a short product.

        Raises
        ------
        ValueError
            If the shape differs, or an entry is not finite.
        """
        self._check_change(change, "change")
        if self.alpha == 0:
            raise ValueError("CDDAdapter.fit_: alpha is 0, so every change is")
        result, vectors = fitted_vectors(change, list(self.factors))
        with torch.no_grad():
            for factor, vector in zip(self.factors, vectors, strict=True):
                factor.copy_(vector)
            self.factors[0].div_(self.alpha)
        self.fit = result
        return result

    def _check_change(self, change: Tensor | None, name: str) -> None:
        if change is None:
            return
        expected = (self.out_features, self.in_features)
        if tuple(change.shape) != expected:
            raise ValueError(f"CDDAdapter: {name} must have shape {expected}, got {tuple(change.shape)}")
        if not torch.isfinite(change).all():
            raise ValueError(f"CDDAdapter: {name} holds NaN or infinity")

    def operator(self) -> CDDProduct:
        """Return the change as an operator, `alpha` included.

        Returns
        -------
        CDDProduct
            Of shape (out_features, in_features), over the very vectors: gradients flow, and it changes with them.
        """
        product = CDDProduct.from_vectors(*self.factors, block=True)
        return product if self.alpha == 1 else self.alpha * product

    def dense(self) -> Tensor:
        """Return the change as a dense matrix, computed in float32 at least.

        Returns
        -------
        Tensor, shape (out_features, in_features)
            `alpha` included, in float32 at least; detached.
        """
        with torch.no_grad():
            wide = [f.to(torch.promote_types(f.dtype, torch.float32)) for f in self.factors]
            return self.alpha * CDDProduct.from_vectors(*wide, block=True).to_dense()

    def add_to(self, y: Tensor, x: Tensor) -> Tensor:
        """Return `y` plus the change of the rows of `x`.

        Parameters
        ----------
        y : Tensor, shape (..., out_features)
            Not changed; gives the dtype of the result.
        x : Tensor, shape (..., in_features)
            Inputs of the layer.

        Returns
        -------
        Tensor, shape (..., out_features)
            The sum.

        Raises
        ------
        ValueError
            If `x` or `y` has another shape.
        """
        if x.shape[-1:] != (self.in_features,) or y.shape != (*x.shape[:-1], self.out_features):
            raise ValueError(
                f"CDDAdapter: x must have shape (..., {self.in_features}) and y (..., {self.out_features}), "
                f"got {tuple(x.shape)} and {tuple(y.shape)}"
            )
        return add_change(y, x, list(self.factors), self.alpha, self.mode)

    def forward(self, x: Tensor) -> Tensor:
        """Return the change of the rows of `x`.

        Parameters
        ----------
        x : Tensor, shape (..., in_features)
            Inputs of the layer.

        Returns
        -------
        Tensor, shape (..., out_features)
            In the dtype of `x`.
        """
        return self.add_to(x.new_zeros(*x.shape[:-1], self.out_features), x)

    def options(self) -> dict[str, Any]:
        """Return what another adapter needs in order to take over the vectors.

        Returns
        -------
        dict
            Arguments of `CDDAdapter` but for dtype, device and init.
        """
        return {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "n_factors": self.n_factors,
            "block_size": self.block_size,
            "alpha": self.alpha,
            "mode": self.mode,
        }

    def extra_repr(self) -> str:
        """Return the settings, for torch's `repr`.

        Returns
        -------
        str
            Such as ``in_features=6, out_features=4, n_factors=3, ...``.
        """
        return ", ".join(f"{name}={value}" for name, value in self.options().items())
