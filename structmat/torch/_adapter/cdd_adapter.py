"""`CDDAdapter`: the trainable vectors of one change."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout as drop

from structmat._arguments import finite, integer, odd_factors
from structmat._array_tools import ArgumentTypeError, ArgumentValueError
from structmat.fit import FitResult
from structmat.operators import CDDLayout, CDDProduct
from structmat.torch._adapter.autograd import add_change
from structmat.torch._adapter.chunked import Mode
from structmat.torch._adapter.initial_values import Init, fitted_vectors, initialise

__all__ = ["CDDAdapter", "require_floating"]


def require_floating(owner: str, x: Tensor) -> None:
    """Refuse inputs whose products would be rounded to integers, or lose imaginary parts."""
    if not x.is_floating_point():
        raise ArgumentTypeError(owner, "x", f"must be of a floating dtype, got {x.dtype}")


def _no_fast_path(*_: Any) -> None:
    """Do nothing, as a hook of every adapter.

    In evaluation torch's TransformerEncoderLayer reads weights without calling layers, unless it sees hooks.
    """


class Vectors(nn.ParameterList):
    """Vectors that are read by a `forward`, which accelerate replaces by one that brings offloaded ones first."""

    def forward(self) -> list[Tensor]:
        """Return the vectors."""
        return list(self)


class CDDAdapter(nn.Module):
    """The trainable change of one layer: alpha times a product of diagonals and block circulants, D C D or longer.

    Parameters
    ----------
    in_features, out_features : int
        Columns and rows of the change.
    n_factors : int, default 3
        Odd and at least 3. With more than 3, one block circulant has the shape of the change and all others are square,
        with its smaller side.
    block_size : int, "min" or "toeplitz", default "min"
        Side of the circulants, at most ``in_features + out_features - 1``; the last blocks are cropped. "min" is the
        smaller of the two numbers of features, which is the fastest and has the fewest parameters; "toeplitz" is the
        largest side, for which a Toeplitz matrix stands in the place of the circulants.
    alpha : float, default 1.0
        Factor of the product; not trained.
    init : {"zero", "normal", "gradient"}, default "zero"
        See `reset_parameters`.
    gradient : Tensor, shape (out_features, in_features), optional
        For ``init="gradient"``.
    mode : {"recompute", "cache"}, default "recompute"
        Whether the backward pass computes transforms again, or keeps them, which takes two thirds of the transforms,
        and for each circulant of a square change additional memory of twice the layer's input.
    dropout : float, default 0.0
        The share of the change's inputs, from 0 up to but not 1, that are set to zero in training, at random; the
        others are divided by what is left. The base gets all of its inputs.
    dtype, device : optional
        Of the vectors, as everywhere in torch.

    Raises
    ------
    ValueError
        If a size, `n_factors`, `alpha`, `init`, `mode` or `dropout` is none of the above.
    TypeError
        If one is of another kind.

    See Also
    --------
    CDDLinear : A layer with such changes.
    structmat.CDDProduct : The operator, for NumPy, JAX and everything else; `operator` returns one.

    Notes
    -----
    Three factors have ``rows + ceil(rows / b) ceil(cols / b) b + cols`` parameters: 3 n for a square. The product costs
    O(n log n) per row. Half-precision inputs are computed in float32; large batches in bfloat16 by a dense matrix of
    this precision, where the processor has a unit for it (AMX), in the mode "recompute" with three factors.

    References
    ----------
    .. [1] X. Ding, L. Chen, S. Liao, Z. Wang, Parameter-efficient fine-tuning with circulant and diagonal vectors,
       IJCAI 2025, pp. 9185-9193, arXiv:2505.00580.

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

    factors: Vectors
    """The vectors: diagonals (m,) and grids of circulants (p, q, b), in the order of the product."""
    layout: CDDLayout
    """Shapes of the product, of its factors and of their vectors."""
    fit: FitResult | None
    """How well a given change was met, if there was one."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        n_factors: int = 3,
        block_size: int | Literal["min", "toeplitz"] = "min",
        alpha: float = 1.0,
        init: Init = "zero",
        gradient: Tensor | None = None,
        mode: Mode = "recompute",
        dropout: float = 0.0,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.in_features = integer(in_features, "CDDAdapter", "in_features")
        self.out_features = integer(out_features, "CDDAdapter", "out_features")
        n_factors = odd_factors(n_factors, "CDDAdapter", "n_factors")
        shape = (self.out_features, self.in_features)
        self.layout = CDDLayout(shape, n_factors, block_size, owner="CDDAdapter")
        if mode not in get_args(Mode):
            raise ArgumentValueError("CDDAdapter", "mode", f'must be "recompute" or "cache", got {mode!r}')
        if dtype is not None and not isinstance(dtype, torch.dtype):
            raise ArgumentTypeError("CDDAdapter", "dtype", f"must be a torch.dtype, got {dtype!r}")
        if dtype is not None and not dtype.is_floating_point:
            raise ArgumentValueError("CDDAdapter", "dtype", f"must be a floating dtype, got {dtype}")
        self.alpha, self.mode, self.fit = finite(alpha, "CDDAdapter", "alpha"), mode, None
        self.dropout = finite(dropout, "CDDAdapter", "dropout")
        if not 0 <= self.dropout < 1:
            raise ArgumentValueError("CDDAdapter", "dropout", f"must be at least 0 and less than 1, got {dropout}")
        self._init: Init = "zero" if init == "gradient" else init
        self.factors = Vectors(torch.empty(size, dtype=dtype, device=device) for size in self.layout.vector_shapes)
        self.reset_parameters(init, gradient=gradient)
        self.register_forward_pre_hook(_no_fast_path)

    @property
    def block_size(self) -> int:
        """The side of the circulants."""
        return self.layout.block_size

    @property
    def n_factors(self) -> int:
        """The number of factors."""
        return self.layout.n_factors

    @property
    def is_dropping(self) -> bool:
        """Whether inputs are dropped at the moment: in training, if `dropout` is not zero."""
        return self.training and self.dropout > 0

    @property
    def n_parameters(self) -> int:
        """The number of trainable entries."""
        return self.layout.n_parameters

    def reset_parameters(
        self, init: Init | None = None, *, gradient: Tensor | None = None, rng: int | torch.Generator | None = None
    ) -> None:
        """Set the vectors to initial values.

        Parameters
        ----------
        init : {"zero", "normal", "gradient"}, optional
            Default: what the adapter was made with, "zero" after "gradient". "zero": the change is exactly zero; its
            first diagonal is zero, the other diagonals are random signs, circulants are normal with variance
            1 / columns. "normal": random signs in the first diagonal too, which preserves the variance of the input:
            for layers trained from scratch. "gradient": as "zero", but the other factors are those of the product
            nearest to the gradient, so that the first step follows it most closely.
        gradient : Tensor, shape (out_features, in_features), optional
            Of the loss with respect to the layer's weight, for "gradient".
        rng : int or torch.Generator, optional
            Source of random numbers, or its seed. Default: torch's own.

        Raises
        ------
        ValueError
            If `init` is none of the above, or `gradient` is missing, of another shape, zero, or not finite.
        """
        init = self._init if init is None else init
        if init not in get_args(Init):
            raise ArgumentValueError("CDDAdapter", "init", f"must be one of {', '.join(get_args(Init))}, got {init!r}")
        if (init == "gradient") != (gradient is not None):
            raise ArgumentValueError("CDDAdapter", "gradient", 'is for init="gradient", which needs it')
        if gradient is not None:
            self._check_matrix(gradient, "gradient")
            if not gradient.any():
                text = "is zero: two factors would be, and stay so; give the layers above values that are not zero"
                raise ArgumentValueError("CDDAdapter", "gradient", text)
        if rng is not None and not isinstance(rng, torch.Generator):
            seed, place = integer(rng, "CDDAdapter", "rng", 0), self.factors[0].device
            rng = None if place.type == "meta" else torch.Generator(place).manual_seed(seed)  # no values there
        initialise(list(self.factors), self.layout, init, gradient=gradient, rng=rng)

    def fit_(self, delta: Tensor) -> FitResult:
        """Set the vectors to those of a fit of a dense change, by `structmat.fit_cdd`.

        Parameters
        ----------
        delta : Tensor, shape (out_features, in_features)
            What to approximate, `alpha` included.

        Returns
        -------
        FitResult
            With the relative error; also kept as `fit`. Weight changes are rarely close to a short product.

        Raises
        ------
        ValueError
            If the shape differs, or an entry is not finite.
        RuntimeError
            If `alpha` is 0.
        """
        self._check_matrix(delta, "delta")
        if self.alpha == 0:
            raise RuntimeError("CDDAdapter.fit_: alpha is 0, so every change is")
        result, vectors = fitted_vectors(delta, list(self.factors), self.layout)
        with torch.no_grad():
            for factor, vector in zip(self.factors, vectors, strict=True):
                factor.copy_(vector)
            self.factors[0].div_(self.alpha)
        self.fit = result
        return result

    def _check_matrix(self, matrix: Tensor, argument: str) -> None:
        if not isinstance(matrix, Tensor):
            raise ArgumentTypeError(
                "CDDAdapter", argument, f"must be a torch.Tensor, got {type(matrix).__module__}.{type(matrix).__name__}"
            )
        expected = (self.out_features, self.in_features)
        if tuple(matrix.shape) != expected:
            raise ArgumentValueError("CDDAdapter", argument, f"must have shape {expected}, got {tuple(matrix.shape)}")
        if matrix.is_complex():
            raise ArgumentTypeError("CDDAdapter", argument, f"must be real, as the vectors are, got {matrix.dtype}")
        if matrix.is_meta or self.factors[0].is_meta:
            places = f"it is on {matrix.device}, the vectors on {self.factors[0].device}"
            raise ArgumentValueError("CDDAdapter", argument, f"has no values on the device meta: {places}")
        if not torch.isfinite(matrix).all():
            raise ArgumentValueError("CDDAdapter", argument, "holds NaN or infinity")

    def operator(self) -> CDDProduct:
        """Return the change as an operator, `alpha` included.

        Returns
        -------
        CDDProduct
            Of shape (out_features, in_features), sharing the vectors: gradients flow, and it changes with them.
        """
        product = self.layout.product(self.factors.forward())
        return product if self.alpha == 1 else self.alpha * product

    def dense(self) -> Tensor:
        """Return the change as a dense matrix, computed in float32 at least.

        Returns
        -------
        Tensor, shape (out_features, in_features)
            `alpha` included, in float32 at least; detached.
        """
        with torch.no_grad():
            wide = [f.to(torch.promote_types(f.dtype, torch.float32)) for f in self.factors.forward()]
            return self.alpha * self.layout.product(wide).to_dense()

    def add_to(self, y: Tensor, x: Tensor) -> Tensor:
        """Return `y` plus the change of the rows of `x`.

        Parameters
        ----------
        y : Tensor, shape (..., out_features)
            Not changed; its dtype is that of the result.
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
        TypeError
            If `x` is of no floating dtype.
        """
        require_floating("CDDAdapter", x)
        if x.shape[-1:] != (self.in_features,) or y.shape != (*x.shape[:-1], self.out_features):
            raise ArgumentValueError(
                "CDDAdapter",
                None,
                f"x must have shape (..., {self.in_features}) and y (..., {self.out_features}), "
                f"got {tuple(x.shape)} and {tuple(y.shape)}",
            )
        if self.is_dropping:
            x = drop(x, self.dropout)
        return add_change(y, x, self.factors.forward(), self.alpha, self.mode)

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

        Raises
        ------
        ValueError
            If `x` has another shape.
        TypeError
            If `x` is of no floating dtype.
        """
        return self.add_to(x.new_zeros(*x.shape[:-1], self.out_features), x)

    def options(self) -> dict[str, Any]:
        """Return the options with which another adapter can take over the vectors.

        Returns
        -------
        dict
            Arguments of `CDDAdapter` except dtype, device and init.
        """
        return {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "n_factors": self.n_factors,
            "block_size": self.block_size,
            "alpha": self.alpha,
            "mode": self.mode,
            "dropout": self.dropout,
        }

    def extra_repr(self) -> str:
        """Return the settings, for torch's `repr`.

        Returns
        -------
        str
            Such as ``in_features=6, out_features=4, n_factors=3, ...``.
        """
        return ", ".join(f"{name}={value}" for name, value in self.options().items())
