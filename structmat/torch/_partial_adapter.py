"""`PartialCDDAdapter`: the change of some parts of a layer's rows, such as queries and values of a fused layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from structmat._errors import ArgumentValueError
from structmat.fit import FitResult
from structmat.operators import Identity, LinearOperator
from structmat.torch._adapter import CDDAdapter
from structmat.torch._parts import Parts

__all__ = ["PartialCDDAdapter"]


class PartialCDDAdapter(CDDAdapter):
    """The trainable change of some of the equal parts of a layer's rows; all other rows stay as they are.

    The chosen rows, on top of each other, are changed as one matrix, alpha times D C D or a longer product. Where a
    part is square, the default `block_size` gives each part a circulant and a left diagonal of its own; they share the
    right one.

    Parameters
    ----------
    in_features, out_features : int
        Columns and rows of the layer.
    parts : sequence of bool
        One entry for each part, with True for those that have a change.
    **options
        Arguments of `CDDAdapter`.

    Raises
    ------
    ValueError
        If parts do not divide the rows, all or none are chosen, or an option is wrong.
    TypeError
        If one is of another kind.

    See Also
    --------
    adapt : Gives such changes to the layers of a model, by its argument `parts`.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import PartialCDDAdapter
    >>> change = PartialCDDAdapter(4, 12, [True, False, True], init="normal")
    >>> change.n_parameters, change(torch.ones(4)).count_nonzero().item()
    (20, 8)
    """

    parts: Parts

    def __init__(self, in_features: int, out_features: int, parts: Sequence[bool], **options: Any) -> None:
        chosen = Parts.checked(parts, "PartialCDDAdapter")
        super().__init__(in_features, chosen.rows_of(out_features, "PartialCDDAdapter"), **options)
        self.parts = chosen
        self._all_rows = out_features

    @property
    def rows(self) -> int:
        """The number of rows of the layer; `out_features` are those that are chosen."""
        return self._all_rows

    def spread(self, change: Tensor) -> Tensor:
        """Return a dense change of the chosen rows as one of all rows.

        Parameters
        ----------
        change : Tensor, shape (out_features, in_features)
            Of the chosen rows.

        Returns
        -------
        Tensor, shape (rows, in_features)
            With zeros in all others.
        """
        return self.parts.put(change.T, change.new_zeros(change.shape[1], self._all_rows)).T

    def fit_(self, delta: Tensor) -> FitResult:
        """Set the vectors to those of a fit of a dense change, by `structmat.fit_cdd`.

        Parameters
        ----------
        delta : Tensor, shape (rows, in_features)
            What to approximate, zero in the rows that are not chosen.

        Returns
        -------
        FitResult
            Of the chosen rows; also kept as `fit`.

        Raises
        ------
        ValueError
            If the shape differs, an entry is not finite or another row is not zero, or something is on the device meta.
        TypeError
            If `delta` is no real tensor.
        RuntimeError
            If `alpha` is 0.
        """
        if isinstance(delta, Tensor) and tuple(delta.shape) == (self._all_rows, self.in_features):
            chosen = self.parts.of(delta.T).T
            if not delta.is_meta and not torch.equal(self.spread(chosen), delta):
                text = "changes rows of parts that are not chosen"
                raise ArgumentValueError("PartialCDDAdapter", "delta", text)
            return super().fit_(chosen)
        shape = tuple(getattr(delta, "shape", ()))
        text = f"must have shape {(self._all_rows, self.in_features)}, got {shape}"
        raise ArgumentValueError("PartialCDDAdapter", "delta", text)

    def operator(self) -> LinearOperator:  # type: ignore[override]  # a product with a selection of rows
        """Return the change of all rows as an operator, `alpha` included.

        Returns
        -------
        LinearOperator
            Of shape (rows, in_features); gradients flow to `vectors`.
        """
        chosen = self.parts.of(torch.arange(self._all_rows)).tolist()
        selection: LinearOperator = Identity(self._all_rows)[:, chosen]
        return selection @ super().operator()

    def add_to(self, y: Tensor, x: Tensor) -> Tensor:
        """Return `y` plus the change of the rows of `x`.

        Parameters
        ----------
        y : Tensor, shape (..., rows)
            Not changed; its dtype is that of the result.
        x : Tensor, shape (..., in_features)
            Inputs of the layer.

        Returns
        -------
        Tensor, shape (..., rows)
            The sum.

        Raises
        ------
        ValueError
            If `x` or `y` has another shape.
        TypeError
            If `x` is of no floating dtype.
        """
        if y.shape[-1:] != (self._all_rows,):
            text = f"must have shape (..., {self._all_rows}), got {tuple(y.shape)}"
            raise ArgumentValueError("PartialCDDAdapter", "y", text)
        return self.parts.put(super().add_to(self.parts.of(y), x), y)

    def add_to_outputs_of(self, base: Any, x: Tensor) -> Tensor:
        """Return the outputs of a base layer plus the change.

        Parameters
        ----------
        base : Module or callable
            Maps ``(..., in_features)`` to ``(..., rows)``.
        x : Tensor, shape (..., in_features)
            Inputs.

        Returns
        -------
        Tensor, shape (..., rows)
            In the dtype of the base's outputs.
        """
        return self.add_to(base(x), x)

    def options(self) -> dict[str, Any]:
        """Return the options with which another adapter can take over the vectors.

        Returns
        -------
        dict
            Arguments of `PartialCDDAdapter` except dtype, device and init.
        """
        return super().options() | {"out_features": self._all_rows, "parts": list(self.parts.chosen)}
