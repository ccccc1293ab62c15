"""A module whose stacked matrices are changed while it runs: `call_changed`.

Mixtures of experts of transformers hold the matrices of a block as one parameter (experts, rows, columns), and
multiply by parts of it, in a loop over experts or by grouped and batched products. For the time of a call a stand-in
takes the place of the parameter. It answers to indices, transposes and products as the sum of the parameter and its
changes would, and computes them as the weight's product plus a structured change; nowhere is there a second stack of
large matrices. All other functions get the sum as a dense tensor: right, but not fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import RLock
from typing import Any, NamedTuple, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._pytree import register_pytree_node, tree_map

from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat.torch._autograd import apply_change, autocast_dtype, have_one_dtype
from structmat.torch._other_tools import change_as_matrix, is_recorded
from structmat.torch._stacked_adapter import StackedCDDAdapter
from structmat.torch._stacked_product import adjoint_vectors, loops_over_experts, stacked_change

__all__ = ["Stack", "call_changed", "laid_out", "stack_of"]


class Stack(NamedTuple):
    """How a parameter holds the matrices of experts."""

    n_experts: int
    out_features: int
    in_features: int
    transposed: bool
    """Whether it is (experts, in_features, out_features)."""
    single: bool = False
    """Whether it is one matrix without an axis of experts, of which there is one then."""


def stack_of(module: nn.Module, name: str, owner: str) -> Stack:
    """Return how a parameter of a module holds matrices of experts.

    Raises
    ------
    ValueError
        If it has neither three axes nor two.
    TypeError
        If it is no floating parameter of the module, as a quantised one.
    """
    parameter = module._parameters.get(name)
    text = f"{type(module).__name__}.{name}"
    if parameter is None:
        raise ArgumentTypeError(owner, "parameters", f"name {text}, which is no parameter, or is computed from others")
    if not parameter.is_floating_point() or parameter.element_size() < 2:
        raise ArgumentTypeError(owner, "parameters", f"name {text}, which is quantised, of dtype {parameter.dtype}")
    shape = tuple(getattr(parameter, "ds_shape", parameter.shape))  # whole, of DeepSpeed ZeRO-3
    if len(shape) == 2:
        return Stack(1, *shape, transposed=False, single=True)
    if len(shape) != 3:
        wanted = "must have shape (experts, rows, columns)"
        raise ArgumentValueError(owner, "parameters", f"name {text} of shape {shape}, which {wanted}")
    transposed = bool(getattr(module, "is_transposed", False))
    n_experts, rows, columns = shape
    sizes = (columns, rows) if transposed else (rows, columns)
    return Stack(n_experts, *sizes, transposed=transposed)


def laid_out(stack: Stack, changes: Tensor) -> Tensor:
    """Return changes (experts, out_features, in_features) in the layout of the parameter."""
    if stack.single:
        return changes[0]
    return changes.transpose(1, 2) if stack.transposed else changes


def call_changed(
    module: nn.Module, changes: Mapping[str, Sequence[StackedCDDAdapter]], *args: Any, **kwargs: Any
) -> Any:
    """Call a module while some of its parameters stand for themselves plus the changes of adapters.

    Parameters
    ----------
    module : Module
        Called with the other arguments. Its parameters stay as they are.
    changes : mapping
        The adapters of each parameter, by its name in the module; their changes add up.
    """
    active = {name: list(adapters) for name, adapters in changes.items() if adapters}
    if not active:
        return module(*args, **kwargs)
    standing_in = {name: ChangedWeight.of(module, name, adapters) for name, adapters in active.items()}
    if is_recorded():
        # Compilers and exporters see plain operations on dense sums.
        dense = {name: weight.dense() for name, weight in standing_in.items()}
        return torch.func.functional_call(module, dense, args, kwargs)
    offloaded = vars(module).get("_old_forward")
    if offloaded is None:
        with _replaced(module, standing_in):
            return module(*args, **kwargs)

    # Where accelerate keeps the parameters elsewhere, its forward pass puts them into the module, calls this one, and
    # takes them out again: the stand-ins are not to be there meanwhile.
    def forward(*args: Any, **kwargs: Any) -> Any:
        with _replaced(module, standing_in):
            return offloaded(*args, **kwargs)

    with _replaced(module, {"_old_forward": forward}):
        return module(*args, **kwargs)


_LOCKS: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()
"""A lock for each module that was called: what one thread puts into it is not for others, which wait."""


@contextmanager
def _replaced(module: nn.Module, values: Mapping[str, Any]) -> Iterator[None]:
    """Let attributes of a module have other values than its parameters, which it keeps."""
    with _LOCKS.setdefault(module, RLock()):
        own = vars(module)  # attributes found here are not looked up among the parameters
        before = {name: own[name] for name in values if name in own}
        own.update(values)
        try:
            yield
        finally:
            for name in values:
                own.pop(name, None)
            own.update(before)


class ChangedWeight:
    """A stack of matrices plus changes, or some of them, as it stands for the parameter while a module runs.

    It is no tensor, but says that it is one to those who ask, and torch gives functions of it to `__torch_function__`.
    """

    _is_param = False
    """What torch asks of a tensor that may be a parameter."""

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return Tensor

    def __init__(
        self,
        module: nn.Module,
        name: str,
        adapters: Sequence[StackedCDDAdapter],
        *,
        transposed: bool,
        turned: bool,
        index: int | Tensor | None,
        parts: list[list[tuple[Tensor, ...]]],
    ) -> None:
        self._module = module
        self._name = name
        self._adapters = adapters
        self._transposed = transposed
        # Whether the last two axes are (in, out): those of this view, not of the parameter.
        self._turned = turned
        # The expert that this is a view of, or the experts; None for all of them.
        self._index = index
        # The vectors of single experts, which all views share: split once, so that gradients are put together once.
        self._parts = parts

    @classmethod
    def of(cls, module: nn.Module, name: str, adapters: Sequence[StackedCDDAdapter]) -> ChangedWeight:
        """Return what stands for a parameter of a module plus the changes of adapters."""
        stack = stack_of(module, name, "CDDExperts")
        index = 0 if stack.single else None
        turned = stack.transposed
        return cls(module, name, adapters, transposed=turned, turned=turned, index=index, parts=[])

    def _view(self, *, turned: bool | None = None, index: int | Tensor | None = None) -> ChangedWeight:
        """Return another view of the same sum."""
        turned = self._turned if turned is None else turned
        index = self._index if index is None else index
        return ChangedWeight(
            self._module,
            self._name,
            self._adapters,
            transposed=self._transposed,
            turned=turned,
            index=index,
            parts=self._parts,
        )

    # ---- what a tensor answers without its entries

    def _matrices(self) -> Tensor:
        """Return the parameter's matrices as (experts, out, in), without the changes.

        The parameter is read when it is needed: engines that gather it do so after the module's call has begun.
        """
        parameter: Any = self._module._parameters[self._name]
        if parameter.ndim == 2:
            return parameter[None]
        return parameter.transpose(1, 2) if self._transposed else parameter

    def _plain(self) -> Tensor:
        """Return this view of the parameter, without the changes."""
        matrices = self._matrices()
        if self._turned:
            matrices = matrices.transpose(1, 2)
        return matrices if self._index is None else matrices[self._index]

    @property
    def shape(self) -> torch.Size:
        shape = self._matrices().shape
        tail = (shape[2], shape[1]) if self._turned else (shape[1], shape[2])
        if self._index is None:
            return torch.Size((shape[0], *tail))
        return torch.Size(tail if isinstance(self._index, int) else (*self._index.shape, *tail))

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def dim(self) -> int:
        return len(self.shape)

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        return self._matrices().dtype

    @property
    def device(self) -> torch.device:
        return self._matrices().device

    def data_ptr(self) -> int:
        return self._matrices().data_ptr()

    # ---- views

    def __getitem__(self, index: Any) -> Any:
        if self._index is None:
            if isinstance(index, Tensor) and index.ndim == 0 and not index.is_floating_point():
                index = int(index)
            if isinstance(index, int) and not isinstance(index, bool):
                count = len(self)
                if not -count <= index < count:
                    raise IndexError(f"index {index} is out of bounds for {count} experts")
                return self._view(index=index % count)
            if isinstance(index, Tensor) and index.ndim == 1 and index.dtype in {torch.int64, torch.int32}:
                return self._view(index=torch.where(index < 0, index + len(self), index))
        return self.dense()[index]

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    def transpose(self, first: int, second: int) -> Any:
        axes = {first % self.ndim, second % self.ndim}
        if axes == {self.ndim - 2, self.ndim - 1}:
            return self._view(turned=not self._turned)
        return self.dense().transpose(first, second)

    @property
    def mT(self) -> Any:
        return self.transpose(-2, -1)

    @property
    def T(self) -> Any:
        return self.transpose(0, 1) if self.ndim == 2 else self.dense().T

    def t(self) -> Any:
        return self.transpose(0, 1)

    def __getattr__(self, name: str) -> Any:
        # All that is not above is that of the dense sum.
        return getattr(self.dense(), name)

    # ---- the sum itself

    def dense(self) -> Tensor:
        """Return the sum as a tensor, with gradients of its vectors and its parameter."""
        weight = self._matrices()
        index = [self._index] if isinstance(self._index, int) else self._index
        if index is not None:
            weight = weight[index]
        wide = torch.promote_types(weight.dtype, torch.float32)
        total = weight.to(wide)
        for adapter in self._adapters:
            vectors = adapter.vectors.forward()
            if index is not None:
                vectors = [vector[index] for vector in vectors]
            dtype = torch.promote_types(wide, vectors[0].dtype)
            total = total + change_as_matrix(vectors, adapter.gain, dtype).to(wide)
        total = total.to(weight.dtype)
        if isinstance(self._index, int):
            total = total[0]
        return total.transpose(-2, -1) if self._turned else total

    # ---- products

    @classmethod
    def __torch_function__(
        cls, function: Any, _: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        product = _PRODUCTS.get(getattr(function, "__name__", ""))
        # Functions call their arguments by different names, and have others, such as `out`.
        if product is not None and kwargs.keys() <= _KEYWORDS:
            result = product(function, *args, **kwargs)
            if result is not NotImplemented:
                return result

        # Whoever maps over arguments finds the dense sum in the place of this.
        return function(*tree_map(_itself, args), **tree_map(_itself, kwargs))

    def __matmul__(self, other: Any) -> Any:
        return torch.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Any:
        return torch.matmul(other, self)

    def _is_frozen(self, x: Any) -> bool:
        """Return whether products with rows `x` may leave the weight out of what is differentiated."""
        is_tensor = isinstance(x, Tensor) and not isinstance(x, ChangedWeight)
        return is_tensor and x.is_floating_point() and not self._matrices().requires_grad

    def _of_expert(self, function: Callable[[Tensor], Tensor], x: Tensor, bias: Tensor | None, turned: bool) -> Tensor:
        """Return the product of rows by the matrix of one expert, or by its transpose.

        Parameters
        ----------
        function : callable
            Computes the same without the changes.
        turned : bool
            Whether rows have the features that the experts return, and are multiplied by the adjoints.
        """
        index: Any = self._index
        if not self._parts:
            self._parts.extend(
                list(zip(*(vector.unbind() for vector in adapter.vectors.forward()), strict=True))
                for adapter in self._adapters
            )
        weight = self._matrices()[index]
        y: Tensor | None = None
        for adapter, parts in zip(self._adapters, self._parts, strict=True):
            vectors: Sequence[Tensor] = parts[index]
            if turned:
                vectors = [vector[0] for vector in adjoint_vectors([vector[None] for vector in vectors])]
            if y is None and not adapter.drops and _fuses(x, weight, bias):
                matrix = weight.T if turned else weight
                y = apply_change(None, x, matrix, bias, vectors, adapter.gain)
            else:
                y = function(self._plain()) if y is None else y
                y = apply_change(y, adapter.dropped(x), None, None, vectors, adapter.gain)
        return cast("Tensor", y)

    def _of_groups(
        self, function: Callable[[Tensor], Tensor], x: Tensor, ends: Tensor, dtype: torch.dtype | None, turned: bool
    ) -> Tensor:
        """Return the products of rows (S, k) that are sorted by their experts; `function` may compute them plainly."""
        weight = self._matrices()
        y: Tensor | None = None
        for adapter in self._adapters:
            vectors: Sequence[Tensor] = adapter.vectors.forward()
            if turned:
                vectors = adjoint_vectors(vectors)
            if y is None and not adapter.drops and loops_over_experts(x):
                matrices = weight.transpose(1, 2) if turned else weight
                y = stacked_change(None, x, matrices, ends, vectors, adapter.gain, dtype)
            else:
                y = function(x) if y is None else y
                y = stacked_change(y, adapter.dropped(x), None, ends, vectors, adapter.gain, dtype)
        return cast("Tensor", y)


def _itself(given: Any) -> Any:
    return given


# `torch.vmap` and others that take arguments apart get the dense sum, which they put in its place.
register_pytree_node(ChangedWeight, lambda weight: ([weight.dense()], None), lambda leaves, _: next(iter(leaves)))


def _operator_of_sum(name: str) -> Callable[..., Any]:
    """Return an operator of Python, which `ChangedWeight` applies to the dense sum."""

    def operator(self: ChangedWeight, *others: Any) -> Any:
        return getattr(self.dense(), name)(*others)

    return operator


for _each in ("add", "sub", "mul", "truediv", "pow"):
    setattr(ChangedWeight, f"__{_each}__", _operator_of_sum(f"__{_each}__"))
    setattr(ChangedWeight, f"__r{_each}__", _operator_of_sum(f"__r{_each}__"))
for _each in ("neg", "abs", "eq", "ne", "lt", "le", "gt", "ge"):
    setattr(ChangedWeight, f"__{_each}__", _operator_of_sum(f"__{_each}__"))


def _fuses(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether one operation can compute the product and the change, as `_autograd.fuses` says of a layer."""
    is_trained = bias is not None and bias.requires_grad
    return not is_trained and have_one_dtype(x, weight, bias)


# ---- the functions of torch that modules of experts call


def _linear(function: Any, x: Any, weight: Any, bias: Tensor | None = None) -> Any:
    """``x W^T + bias`` for the matrix of one expert."""
    if not isinstance(weight, ChangedWeight) or not isinstance(weight._index, int) or not weight._is_frozen(x):
        return NotImplemented
    return weight._of_expert(lambda plain: function(x, plain, bias), x, bias, weight._turned)


def _matmul(function: Any, first: Any, second: Any) -> Any:
    """``x W`` for the matrix of one expert, or for several of them."""
    if isinstance(second, ChangedWeight) and isinstance(second._index, int) and second._is_frozen(first):
        return second._of_expert(lambda plain: function(first, plain), first, None, not second._turned)
    return _bmm(function, first, second)


def _bmm(function: Any, first: Any, second: Any) -> Any:
    """Products of a batch of matrices, one for each expert or for each of the rows that were selected."""
    weight, x = (second, first) if isinstance(second, ChangedWeight) else (first, second)
    if not isinstance(weight, ChangedWeight) or isinstance(weight._index, int) or not weight._is_frozen(x):
        return NotImplemented
    if x.ndim != 3 or len(x) != len(weight):
        return NotImplemented
    left = weight is first  # W x instead of x W
    rows = x.transpose(1, 2) if left else x  # (N, T, k): T rows for each matrix
    turned = weight._turned if left else not weight._turned
    count, each, _ = rows.shape
    experts = torch.arange(len(weight._matrices()), device=x.device)
    ids = experts if weight._index is None else weight._index
    order = None if weight._index is None else torch.argsort(ids, stable=True)
    ends = each * torch.searchsorted(ids if order is None else ids[order], experts, right=True)

    def plain(_: Tensor) -> Tensor:
        y = function(weight._plain(), x).transpose(1, 2) if left else function(x, weight._plain())
        y = y if order is None else y[order]
        return y.reshape(count * each, y.shape[2])

    together = rows if order is None else rows[order]
    y = weight._of_groups(plain, together.reshape(count * each, rows.shape[2]), ends, autocast_dtype(x), turned)
    y = y.view(count, each, y.shape[1])
    if order is not None:
        y = y[torch.argsort(order)]
    return y.transpose(1, 2) if left else y


def _grouped(function: Any, x: Any, weight: Any, offs: Any = None, *others: Any, **options: Any) -> Any:
    """The grouped product ``x W`` of rows that are sorted by their experts."""
    plain_call = offs is not None and not others and all(value is None for value in options.values())
    if not plain_call or not isinstance(weight, ChangedWeight) or weight._index is not None:
        return NotImplemented
    if not weight._is_frozen(x) or x.ndim != 2 or x.dtype != weight.dtype:
        return NotImplemented
    return weight._of_groups(
        lambda rows: function(rows, weight._plain(), offs, **options), x, offs, None, not weight._turned
    )


_PRODUCTS: dict[str, Callable[..., Any]] = {
    "linear": _linear,
    "matmul": _matmul,
    "mm": _matmul,
    "__matmul__": _matmul,
    "bmm": _bmm,
    "grouped_mm": _grouped,
    "_grouped_mm": _grouped,
    "grouped_mm_fallback": _grouped,
}
"""What computes a function of torch, or of transformers, by the name of the function."""
_KEYWORDS = {"weight", "bias", "offs", "out_dtype"}
"""The names of arguments that these understand; a call with others is one with the dense sum."""
