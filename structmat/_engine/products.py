"""Products with everything looked up before: for vectors of one type and dtype, without checks."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from structmat._arrays import common_dtype, is_eager_on_cpu, is_numpy, library_of, matmul, precision_of
from structmat._arrays.typing import Array, DType
from structmat._engine.chunks import in_chunks
from structmat._engine.measured_choices import TORCH_CHUNK, TORCH_LARGE
from structmat._engine.plan import ChunkedPlan, Plan, Step

__all__ = ["Products", "products_of"]


class Products(NamedTuple):
    """Products of arrays of one type and dtype, without checks."""

    kind: Any
    dtype: DType
    vector: tuple[int]
    """The shape of one vector."""
    one: Step
    batched: Step

    def choose(self, x: Any) -> Step | None:
        """Return the product for `x`, or None where it needs checks first."""
        if type(x) is not self.kind or x.dtype != self.dtype:
            return None
        shape = x.shape
        return self.one if shape == self.vector else self.batched if shape[-1:] == self.vector else None

    def takes(self, x: Array) -> bool:
        """Tell whether they are for arrays such as `x`, of the right length."""
        return isinstance(x, self.kind) and bool(x.dtype == self.dtype)

    def __call__(self, x: Array) -> Array:
        product: Array = (self.one if x.ndim == 1 else self.batched)(x, None)
        return product


def products_of(plan: Plan, matrix: Any, direct: int) -> Products | None:
    """Return the products by a plan of NumPy or torch arrays, or for few vectors by a dense matrix; None for others."""
    if not isinstance(plan, ChunkedPlan) or plan.is_stack:
        return None
    xp = plan._own_namespace()
    if library_of(xp) not in {"numpy", "torch"}:  # others trace their arrays in types of their own
        return None
    dtype = common_dtype(xp, *(array.dtype for array in plan._arrays()))
    dtype = precision_of(dtype, xp) if plan.is_real else dtype
    make = _numpy_products if is_numpy(xp) else _torch_products
    return Products(type(xp.zeros(0)), dtype, (plan.shape[1],), *make(plan, matrix, direct, dtype))


def _numpy_products(plan: ChunkedPlan, matrix: Any, direct: int, dtype: Any) -> tuple[Step, Step]:
    """Return the product of one vector and that of a batch."""
    rows, cols = plan.shape
    dtype = np.dtype(dtype)
    batch, size = plan.step(dtype.name, batched=True), plan.chunk_rows(dtype)
    if not direct:
        return plan.step(dtype.name, batched=False), lambda x, out: in_chunks(batch, x, rows, size, out)

    def product(x: Any, out: Any) -> Any:
        if x.size > direct * cols:
            return in_chunks(batch, x, rows, size, out)
        flat = None if out is None else out.reshape(-1, rows)
        return np.matmul(x.reshape(-1, cols), matrix.T, flat).reshape(*x.shape[:-1], rows)

    return lambda x, out: np.dot(matrix, x, out), product


def _torch_products(plan: ChunkedPlan, matrix: Any, direct: int, dtype: Any) -> tuple[Step, Step]:
    """Return the product of one vector and that of a batch."""
    xp, (rows, cols) = plan._own_namespace(), plan.shape
    one, many = plan.call(xp, batched=False), plan.call(xp, batched=True)
    transposed: Any = None if matrix is None else matrix.mT
    tensors: list[Any] = plan._arrays()
    learned = any(tensor.requires_grad for tensor in tensors)
    kind, few = type(xp.zeros(0)), TORCH_LARGE // (cols * dtype.itemsize)
    size = max(64 // dtype.itemsize, TORCH_CHUNK // (plan.width * dtype.itemsize))

    def product(x: Any, out: Any) -> Any:  # noqa: ARG001
        count = x.numel() // cols
        if count <= direct or count == 0:
            if not direct:
                return plan.whole(x, xp)  # which can do with no vectors at all
            y = x @ transposed
            return y if y.dtype is dtype else matmul(x, transposed, xp)  # lowered by autocast
        traced = xp.is_grad_enabled() and (learned or x.requires_grad)
        if count <= few or traced or type(x) is not kind or not is_eager_on_cpu(x, xp):
            return many(x)
        parts = x.reshape(count, cols).split(size)
        first = many(parts[0])
        y = first.new_empty((count, rows))  # under vmap a batch of its own, where either factor is one
        y[:size] = first
        for start, part in enumerate(parts[1:], 1):
            y[start * size : (start + 1) * size] = many(part)
        return y.reshape(*x.shape[:-1], rows)

    def dense(x: Any, out: Any) -> Any:  # noqa: ARG001
        y = matrix @ x
        return y if y.dtype is dtype else matmul(matrix, x, xp)  # lowered by autocast

    return dense if direct else (lambda x, out: one(x)), product  # noqa: ARG005
