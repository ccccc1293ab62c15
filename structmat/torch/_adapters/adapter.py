"""`CDDAdapter`: the trainable vectors of a change, or of a stack of changes, in the scale in which optimisers step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout as drop

from structmat._adapter_format import factor_scales
from structmat._arguments import integer
from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat.fit import FitResult, fit_cdd
from structmat.operators import CDDLayout, CDDProduct
from structmat.torch._adapters.from_lora import explaining
from structmat.torch._adapters.options import AdapterOptions
from structmat.torch._calls import no_fast_path
from structmat.torch._changes.dense import dense_change, wide_dtype
from structmat.torch._changes.experts import stacked_change
from structmat.torch._changes.operation import apply_change, fuses
from structmat.torch._changes.rows import Samples

__all__ = ["VECTOR_DTYPES", "CDDAdapter", "Init", "Mixture", "require_floating"]

Init: TypeAlias = Literal["zero", "normal"]
VECTOR_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
"""The dtypes that vectors may have: torch has no sums for floating dtypes of 8 bits and fewer."""
_LARGEST_SCALE = 1e30
"""Bound on the product of all scales: single precision ends at 3e38, and products with vectors need some room."""


def require_floating(owner: str, x: Tensor) -> None:
    """Refuse integers, to which products would be rounded, and complex numbers, which would lose imaginary parts."""
    if not x.is_floating_point():
        raise ArgumentTypeError(owner, "x", f"must be of a floating dtype, got {x.dtype}")


class Vectors(nn.ParameterList):
    """A list of vectors that is read by a call of `forward`.

    Where accelerate keeps vectors elsewhere, it replaces this method by one that brings them first.
    """

    def forward(self) -> list[Tensor]:
        """Return the vectors."""
        # Iterating over a list of parameters takes eleven microseconds, a tenth of a forward pass of one row. Engines
        # have tables of their own, which bring what they are asked for, or keep vectors outside of them.
        own = self._parameters
        found: list[Any] = list(map(own.__getitem__, own)) if len(own) == len(self) else list(self)
        return found


class Mixture(NamedTuple):
    """Several changes of one layout, of which each sample of a batch has one."""

    vectors: Sequence[Tensor]
    """Their vectors as they are stored, stacked, of shapes (K, ...)."""
    samples: Samples
    """Which of them each sample has, in the order of the rows of the layer, and what its change is multiplied by."""


class CDDAdapter(nn.Module):
    """The trainable change of one layer, alpha times a product of diagonals and block circulants, D C D or longer.

    Or those of several matrices of one size, such as those of experts: each has vectors of its own.

    Parameters
    ----------
    in_features, out_features : int
        Columns and rows of the change.
    n_matrices : int, optional
        The number of changes in a stack. Default: there is one, and no axis for it.
    n_factors : int, default 3
        Odd and at least 3. With more than 3, one block circulant has the shape of the change and all others are square,
        with its smaller side.
    block_size : int, "min" or "toeplitz", default "min"
        Side of the circulants, at most ``in_features + out_features - 1``; the last blocks are cropped. "min" is the
        smaller of the two numbers of features, which is the fastest and has the fewest parameters; "toeplitz" is the
        largest side, for which a Toeplitz matrix stands in the place of the circulants.
    alpha : float, default 1.0
        Factor of the product; not trained.
    init : {"zero", "normal"}, default "zero"
        See `reset_parameters`.
    dropout : float, default 0.0
        The share of the change's inputs, from 0 up to but not 1, that are set to zero in training, at random; the
        others are divided by what is left. The base gets all of its inputs.
    factor_scale : float, default 30.0
        Positive. Diagonals are this times the trained vectors, circulants of n columns this over the root of n, so that
        learning rates of LoRA, 1e-4 to 1e-3, suit layers of every size.
    dtype, device : optional
        Of the vectors, as everywhere in torch; a dtype of float64, float32, bfloat16, float16.

    Raises
    ------
    ValueError
        If a size, `n_factors`, `alpha`, `init`, `dropout` or `factor_scale` is none of the above.
    TypeError
        If one is of another kind.

    See Also
    --------
    CDDLinear : A layer with such a change.
    CDDExperts : A module of experts with stacks of them.
    structmat.CDDProduct : The operator, for NumPy, JAX and everything else; `operator` returns one.

    Notes
    -----
    Three factors have ``rows + ceil(rows / b) ceil(cols / b) b + cols`` parameters: 3 n for a square. The product costs
    O(n log n) per row. Half-precision inputs are computed in float32.

    In a stack `layout` and `scales` are those of one change; `vectors` and `factors` have the matrices on their first
    axis, and so have `dense`, `operator` and what `fit_` takes.

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

    Of eight experts, each has rows of its own:

    >>> changes = CDDAdapter(6, 4, n_matrices=8, init="normal")
    >>> changes.n_parameters, changes(torch.ones(8, 2, 6)).shape
    (144, torch.Size([8, 2, 4]))
    >>> changes.dense().shape
    torch.Size([8, 4, 6])
    """

    n_matrices: int | None
    """The number of changes in a stack; None where there is one alone."""
    vectors: Vectors
    """What is trained: diagonals (m,) and grids of circulants (p, q, b), in the order of the product, divided by their
    scales."""
    layout: CDDLayout
    """Shapes of the product, of its factors and of their vectors."""
    scales: tuple[float, ...]
    """What each vector is multiplied by to be that of a factor."""
    product_of_scales: float
    """What products of the stored vectors are multiplied by besides `alpha`."""
    varies = False
    """Whether samples have different changes, as they may in a bank."""
    fit: FitResult | None
    """How well a given change was met, if there was one."""

    @explaining("CDDAdapter")
    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        n_matrices: int | None = None,
        n_factors: int = AdapterOptions.n_factors,
        block_size: int | Literal["min", "toeplitz"] = AdapterOptions.block_size,
        alpha: float = AdapterOptions.alpha,
        init: Init = "zero",
        dropout: float = AdapterOptions.dropout,
        factor_scale: float = AdapterOptions.factor_scale,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.in_features = integer(in_features, "CDDAdapter", "in_features")
        self.out_features = integer(out_features, "CDDAdapter", "out_features")
        self.n_matrices = None if n_matrices is None else integer(n_matrices, "CDDAdapter", "n_matrices", 1)
        given = {
            "n_factors": n_factors,
            "block_size": block_size,
            "alpha": alpha,
            "dropout": dropout,
            "factor_scale": factor_scale,
        }
        options = AdapterOptions.checked(given, "CDDAdapter")
        shape = (self.out_features, self.in_features)
        self.layout = CDDLayout(shape, options.n_factors, options.block_size, owner="CDDAdapter")
        if dtype is not None and not isinstance(dtype, torch.dtype):
            raise ArgumentTypeError("CDDAdapter", "dtype", f"must be a torch.dtype, got {dtype!r}")
        if dtype is not None and dtype not in VECTOR_DTYPES:
            text = f"must be a floating dtype of at least 16 bits, got {dtype}"
            raise ArgumentValueError("CDDAdapter", "dtype", text)
        self.alpha = options.alpha
        self.dropout = options.dropout
        self.factor_scale = options.factor_scale
        self.fit = None
        self.scales = factor_scales(self.layout, self.factor_scale)
        self.product_of_scales = math.prod(self.scales)
        if not 1 / _LARGEST_SCALE < self.product_of_scales < _LARGEST_SCALE:
            text = f"is too large for the factor_scale {factor_scale}: the product of scales leaves single precision"
            raise ArgumentValueError("CDDAdapter", "n_factors", text)
        self._init: Init = init
        # In inference mode they would become tensors that autograd refuses for good, and that nobody may write into.
        with torch.inference_mode(mode=False):
            self.vectors = Vectors([torch.empty(size, dtype=dtype, device=device) for size in self.vector_shapes])
            self.reset_parameters()
        self.register_forward_pre_hook(no_fast_path)

    @property
    def lead(self) -> tuple[int, ...]:
        """The axes before those of one change: that of the matrices of a stack."""
        return () if self.n_matrices is None else (self.n_matrices,)

    @property
    def vector_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of the vectors, with the matrices of a stack on the first axis."""
        lead, shapes = self.lead, self.layout.vector_shapes
        return tuple((*lead, *shape) for shape in shapes) if lead else shapes

    @property
    def block_size(self) -> int:
        """The side of the circulants."""
        return self.layout.block_size

    @property
    def n_factors(self) -> int:
        """The number of factors."""
        return self.layout.n_factors

    @property
    def n_parameters(self) -> int:
        """The number of trainable entries, of all matrices."""
        return math.prod(self.lead) * self.layout.n_parameters

    @property
    def gain(self) -> float:
        """What products of the stored vectors are multiplied by: `alpha` and all `scales`."""
        return self.alpha * self.product_of_scales

    @property
    def factors(self) -> list[Tensor]:
        """The vectors of the factors as they are multiplied, `alpha` left out; assign to set them.

        Gradients flow to `vectors`, which hold them divided by `scales`.
        """
        return [scale * vector for scale, vector in zip(self.scales, self.vectors.forward(), strict=True)]

    @factors.setter
    def factors(self, values: Sequence[Tensor]) -> None:
        shapes = tuple(tuple(value.shape) for value in values)
        if shapes != self.vector_shapes:
            text = f"must have shapes {self.vector_shapes}, got {shapes}"
            raise ArgumentValueError("CDDAdapter", "factors", text)
        with torch.no_grad():
            for vector, value, scale in zip(self.vectors, values, self.scales, strict=True):
                vector.copy_(value / scale)

    def reset_parameters(self, init: Init | None = None, *, rng: int | torch.Generator | None = None) -> None:
        """Set the vectors to initial values.

        Circulants get normal entries of variance 1 / columns, diagonals random signs, which together keep the variance
        of a random input through any number of factors [1]_.

        Parameters
        ----------
        init : {"zero", "normal"}, optional
            Default: what the adapter was made with. "zero": the first diagonal is zero, and so the change; it alone
            changes in the first step, and all others in later ones. "normal": random signs in the first diagonal too,
            for layers trained from scratch.
        rng : int or torch.Generator, optional
            Source of random numbers, or its seed. Default: torch's own.

        Raises
        ------
        ValueError
            If `init` is none of the above.

        References
        ----------
        .. [1] A. Araujo, B. Negrevergne, Y. Chevaleyre, J. Atif, Understanding and training deep diagonal circulant
           neural networks, arXiv:1901.10255.
        """
        init = self._init if init is None else init
        if init not in get_args(Init):
            raise ArgumentValueError("CDDAdapter", "init", f"must be one of {', '.join(get_args(Init))}, got {init!r}")
        if rng is not None and not isinstance(rng, torch.Generator):
            seed = integer(rng, "CDDAdapter", "rng", 0)
            place = self.vectors[0].device
            # Tensors on the device meta have no values, and there are no generators for it.
            rng = None if place.type == "meta" else torch.Generator(place).manual_seed(seed)
        with torch.no_grad():
            factors = zip(self.layout.kinds, self.layout.factor_shapes, strict=True)
            for vector, scale, (kind, (_, cols)) in zip(self.vectors, self.scales, factors, strict=True):
                if kind == "diagonal":
                    # From 0 or 1 to plus or minus the inverse of the scale.
                    vector.bernoulli_(0.5, generator=rng).mul_(2 / scale).sub_(1 / scale)
                else:
                    vector.normal_(0, cols**-0.5 / scale, generator=rng)
            if init == "zero":
                self.vectors[0].zero_()

    def fit_(self, delta: Tensor) -> FitResult:
        """Set the vectors to those of a fit of a dense change, by `structmat.fit_cdd`.

        Parameters
        ----------
        delta : Tensor, shape (out_features, in_features)
            What to approximate, `alpha` included; of a stack with the matrices on a first axis, each of which is
            fitted by itself.

        Returns
        -------
        FitResult
            With the relative error, of a stack that of the matrix with the largest one; also kept as `fit`. Weight
            changes are rarely close to a short product.

        Raises
        ------
        ValueError
            If the shape differs, an entry is not finite, or the vectors or `delta` are on the device meta.
        TypeError
            If `delta` is no real tensor.
        RuntimeError
            If `alpha` is 0.
        """
        shape = (*self.lead, self.out_features, self.in_features)
        if not isinstance(delta, Tensor) or delta.is_complex():
            kind = delta.dtype if isinstance(delta, Tensor) else type(delta).__name__
            raise ArgumentTypeError("CDDAdapter", "delta", f"must be a real torch.Tensor, got {kind}")
        if tuple(delta.shape) != shape:
            raise ArgumentValueError("CDDAdapter", "delta", f"must have shape {shape}, got {tuple(delta.shape)}")
        if delta.is_meta or self.vectors[0].is_meta:
            raise ArgumentValueError("CDDAdapter", "delta", "or the adapter is on the device meta, without values")
        if not torch.isfinite(delta).all():
            raise ArgumentValueError("CDDAdapter", "delta", "holds NaN or infinity")
        if self.alpha == 0:
            raise RuntimeError("CDDAdapter.fit_: alpha is 0, so every change is")
        dense = delta.detach().to(wide_dtype(delta)).cpu()
        matrices = [dense] if self.n_matrices is None else dense
        fits = [fit_cdd(each, self.n_factors, block_size=self.block_size, rng=0) for each in matrices]
        found = [self.layout.vectors_of(fit.operator) for fit in fits]
        fitted: Any = found[0] if self.n_matrices is None else [torch.stack(same) for same in zip(*found, strict=True)]
        first, *others = (vector.to(self.vectors[0].device) for vector in fitted)
        # The fitted change has alpha in it, by which a product is multiplied besides.
        self.factors = [first / self.alpha, *others]
        self.fit = max(fits, key=lambda fit: float(fit.error))
        return self.fit

    def operator(self) -> CDDProduct:
        """Return the change as an operator, `alpha` included.

        Returns
        -------
        CDDProduct
            Of shape (out_features, in_features), or a stack of such; gradients flow to `vectors`.
        """
        product = self.layout.product(self.factors)
        return product if self.alpha == 1 else self.alpha * product

    def dense(self, dtype: torch.dtype | None = None) -> Tensor:
        """Return the change as a dense matrix.

        Parameters
        ----------
        dtype : torch.dtype, optional
            That of a weight to which it is to be added. Default: that of the vectors.

        Returns
        -------
        Tensor, shape (out_features, in_features)
            Of a stack with the matrices on a first axis. `alpha` included; computed in the widest of float32, `dtype`
            and that of the vectors, and detached.
        """
        vectors = self.vectors.forward()
        wide = wide_dtype(*vectors)
        with torch.no_grad():
            of_result = wide if dtype is None else torch.promote_types(wide, dtype)
            return dense_change(self.layout.shape, vectors, self.gain, of_result)

    @property
    def drops(self) -> bool:
        """Whether some of the inputs are set to zero now."""
        return self.training and self.dropout > 0

    def dropped(self, x: Tensor) -> Tensor:
        """Return the inputs of the change: in training some of those of the layer are set to zero.

        Parameters
        ----------
        x : Tensor
            Inputs of the layer.

        Returns
        -------
        Tensor
            `x` itself without dropout.
        """
        return drop(x, self.dropout) if self.drops else x

    def add_to(self, y: Tensor, x: Tensor, mixture: Mixture | None = None) -> Tensor:
        """Return `y` plus the change of the rows of `x`.

        Parameters
        ----------
        y : Tensor, shape (..., out_features)
            Not changed; its dtype is that of the result.
        x : Tensor, shape (..., in_features)
            Inputs of the layer. For a stack of changes the first axis of both is that of the matrices.
        mixture : Mixture, optional
            What the samples have in the place of this change: each has one of several of the same layout and scales.

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
        self._require_rows(y, x, self.lead if mixture is None else ())
        x = self.dropped(x)
        if mixture is not None:
            return apply_change(y, x, None, None, mixture.vectors, self.product_of_scales, mixture.samples)
        if self.n_matrices is None:
            return apply_change(y, x, None, None, self.vectors.forward(), self.gain)
        rows, flat = x.reshape(-1, self.in_features), y.reshape(-1, self.out_features)
        each = len(rows) // self.n_matrices
        if not each:  # the inputs stay in the graph, so that they have a gradient
            return y + 0 * x.sum()
        ends = torch.arange(each, len(rows) + 1, each, device=x.device)
        return stacked_change(flat, rows, ends, self.vectors.forward(), self.gain).reshape(y.shape)

    def add_to_outputs_of(self, base: Any, x: Tensor, mixture: Mixture | None = None) -> Tensor:
        """Return the outputs of a base layer plus the change: with a plain frozen linear layer in one operation.

        Parameters
        ----------
        base : Module or callable
            Maps ``(..., in_features)`` to ``(..., out_features)``.
        x : Tensor, shape (..., in_features)
            Inputs.
        mixture : Mixture, optional
            As for `add_to`.

        Returns
        -------
        Tensor, shape (..., out_features)
            In the dtype of the base's outputs.
        """
        # With dropout the base and the change have different inputs. Properties would take time in each layer here.
        if (self.training and self.dropout > 0) or not fuses(base, x):
            return self.add_to(base(x), x, mixture)
        if mixture is not None:
            vectors, samples = mixture
            return apply_change(None, x, base.weight, base.bias, vectors, self.product_of_scales, samples)
        gain = self.alpha * self.product_of_scales
        return apply_change(None, x, base.weight, base.bias, self.vectors.forward(), gain)

    def _require_rows(self, y: Tensor, x: Tensor, lead: tuple[int, ...]) -> None:
        """Refuse inputs or outputs of another kind, or of another shape than (*lead, ..., features)."""
        require_floating("CDDAdapter", x)
        sides = (*x.shape[: len(lead)], *x.shape[-1:])
        if sides != (*lead, self.in_features) or y.shape != (*x.shape[:-1], self.out_features):
            shape = ", ".join(map(str, (*lead, "...")))
            raise ArgumentValueError(
                "CDDAdapter",
                None,
                f"x must have shape ({shape}, {self.in_features}) and y ({shape}, {self.out_features}), "
                f"got {tuple(x.shape)} and {tuple(y.shape)}",
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return the change of the rows of `x`.

        Parameters
        ----------
        x : Tensor, shape (..., in_features)
            Inputs of the layer. For a stack the first axis is that of the matrices.

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
        own = {name: getattr(self, name) for name in ("in_features", "out_features", *AdapterOptions.names())}
        return own if self.n_matrices is None else {"n_matrices": self.n_matrices, **own}

    def extra_repr(self) -> str:
        """Return the settings, for torch's `repr`.

        Returns
        -------
        str
            Such as ``in_features=6, out_features=4, n_factors=3, ...``.
        """
        return ", ".join(f"{name}={value}" for name, value in self.options().items())
