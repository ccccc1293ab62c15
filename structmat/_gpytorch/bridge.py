"""The bridge to the package linear_operator, on which GPyTorch is built."""

from __future__ import annotations

from typing import Any

from structmat._arrays.libraries import is_torch
from structmat._errors import ArgumentTypeError
from structmat.operators import LinearOperator


def as_linear_operator(operator: LinearOperator) -> Any:
    """Return an operator as one of the package linear_operator, for GPyTorch: say, as the covariance of a kernel.

    Parameters
    ----------
    operator : LinearOperator
        A matrix or a stack whose parameters are tensors.

    Returns
    -------
    linear_operator.LinearOperator
        With the products of `operator`. Gradients reach the parameters.

    Raises
    ------
    ImportError
        If linear_operator is not installed.
    TypeError
        If `operator` is not a structmat operator, or does not hold real tensors, to which alone linear_operator has
        gradients: of a `SpectralCirculant` take ``to_circulant()``.

    Examples
    --------
    >>> import torch
    >>> import structmat as sm
    >>> column = torch.tensor([2.0, 1.0, 0.0], requires_grad=True)
    >>> A = sm.torch.as_linear_operator(sm.Toeplitz(column))
    >>> (A @ torch.ones(3)).round(decimals=4).tolist()
    [3.0, 4.0, 3.0]
    >>> A.logdet().backward()
    >>> column.grad.round(decimals=4).tolist()
    [2.5, -2.0, 0.5]
    """
    owner = "as_linear_operator"
    if not isinstance(operator, LinearOperator):
        raise ArgumentTypeError(owner, "operator", f"must be a structmat operator, got {type(operator).__name__}")
    arrays: list[Any] = operator._arrays()
    if not arrays or not all(is_torch(array) and not array.is_complex() for array in arrays):
        raise ArgumentTypeError(owner, "operator", f"must hold real tensors and no others, got {operator!r}")
    try:
        # The package linear_operator is not in the extra, so that it may be missing.
        from structmat._gpytorch.structured_operator import StructuredLinearOperator  # noqa: PLC0415
    except ModuleNotFoundError as error:
        text = 'needs linear_operator: pip install "structmat[torch]" linear_operator'
        raise ImportError(f"structmat.torch.as_linear_operator {text}") from error
    return StructuredLinearOperator.of(operator)
