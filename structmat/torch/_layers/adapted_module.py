"""`AdaptedModule`: a frozen base module with changes of its weights; what layers and modules of experts share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from structmat._errors import ArgumentTypeError
from structmat.torch._adapters.adapter import CDDAdapter
from structmat.torch._layers.base_weight import owner_of

__all__ = ["AdaptedModule"]


class AdaptedModule(nn.Module):
    """A frozen base module with changes of its weights."""

    base: Any
    """The frozen module, or None."""

    @classmethod
    def _new_adapter(
        cls, in_features: int, out_features: int, n_matrices: int | None, options: Mapping[str, Any]
    ) -> CDDAdapter:
        """Return new changes of the size that the base has; refuse options that tell another number of matrices."""
        if "n_matrices" in options:
            text = "is that of the base, and no option of a layer: leave it out; CDDAdapter alone takes it"
            raise ArgumentTypeError(cls.__name__, "n_matrices", text)
        return CDDAdapter(in_features, out_features, n_matrices=n_matrices, **options)

    def _changes(self) -> dict[str, CDDAdapter]:
        """Return the changes by the ends of their paths in the plain model.

        That is an empty string for the change of a layer, else the name of a parameter of the base.
        """
        raise NotImplementedError

    def _prefix(self, end: str) -> str:
        """Return the path within this module of the change with an end."""
        raise NotImplementedError

    def _merged(self) -> Mapping[str, nn.Parameter]:
        """Return new parameters for the base by name, with the changes added; the base has not changed yet."""
        raise NotImplementedError

    def merge_into_base(self) -> nn.Module:
        """Add the changes to the weights of the base, for good; see `remove_adapters`.

        Returns
        -------
        Module
            The base. Its changed weights are new parameters: modules that shared the old ones keep those.

        Raises
        ------
        TypeError
            If there is no base, or a weight is quantised, split among processes, of another special kind, or not what
            the base multiplies by.
        ValueError
            If a merged weight held NaN or infinity, or nothing calls this module and a change is not zero; nothing has
            changed then.
        """
        self._set_merged(self._merged())
        return self.base

    def _set_merged(self, merged: Mapping[str, nn.Parameter]) -> None:
        """Put merged parameters into the base."""
        for name, parameter in merged.items():
            module, own = owner_of(self.base, name)
            setattr(module, own, parameter)
