"""`CDDExperts`: a frozen module that holds the matrices of experts in parameters, with a change of each matrix."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn

from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat.operators import LinearOperator
from structmat.torch._adapters.adapter import CDDAdapter
from structmat.torch._calls import is_never_called
from structmat.torch._changes.dense import weight_plus_change
from structmat.torch._layers.adapted_module import AdaptedModule
from structmat.torch._layers.base_weight import dtype_and_device, merged_parameter, own_weight
from structmat.torch._layers.changed_experts import as_matrices, call_changed, laid_out, stack_of

__all__ = ["CDDExperts"]


class CDDExperts(AdaptedModule):
    """A frozen module of experts and trainable changes ``alpha D C D``, one for each matrix in some of its parameters.

    Mixtures of experts of transformers keep the matrices of all experts of a block in one parameter, and multiply by
    parts of it. These products are those of the changed matrices.

    Parameters
    ----------
    base : Module
        Whose parameters are of shape (experts, out_features, in_features), or (experts, in_features, out_features) if
        it has a true attribute ``is_transposed``. It is frozen and shared, not copied.
    parameters : collection of str
        Names of these parameters.
    **options
        Arguments of `CDDAdapter`: `n_factors`, `block_size`, `alpha`, `dropout`, ... Dtype and device are by
        default those of the base, but float32 for one in half precision.

    Raises
    ------
    TypeError
        If the base is no module, a parameter is missing, computed from others or quantised, or there is no such option.
    ValueError
        If there is no name, a parameter has another number of axes, or an option is wrong.

    See Also
    --------
    adapt : Wraps the modules of a whole model that `parameters` name.
    CDDAdapter : The changes of one parameter.

    Notes
    -----
    Where a class of experts of transformers takes functions in the place of its forward pass, as most do, this is one:
    experts without inputs cost no time, nothing of the matrices is kept for the backward pass, and no second stack of
    large ones is made. All other modules, and those that are compiled or exported, run with the dense sums of their
    parameters and the changes: these take memory for a second stack and for its gradient, are rounded in half
    precision, and dropout leaves the same inputs out for all rows. A parameter with two axes has one matrix.

    Threads that call one module wait for each other. Checkpoints of activations may be around the module but not inside
    of it, where what is computed again would lack the changes.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import CDDExperts
    >>> class Experts(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.up_proj = torch.nn.Parameter(torch.randn(4, 6, 5))
    ...
    ...     def forward(self, x, expert):
    ...         return torch.nn.functional.linear(x, self.up_proj[expert])
    >>> experts = CDDExperts(Experts(), ["up_proj"])
    >>> experts(torch.randn(3, 5), 2).shape, experts.adapters["up_proj"].n_parameters
    (torch.Size([3, 6]), 84)
    """

    adapters: nn.ModuleDict
    """The changes by name of the parameter."""

    def __init__(self, base: nn.Module, parameters: Collection[str], **options: Any) -> None:
        super().__init__()
        if not isinstance(base, nn.Module):
            raise ArgumentTypeError("CDDExperts", "base", f"must be a torch.nn.Module, got {type(base).__name__}")
        if isinstance(parameters, str) or not parameters:
            text = f"must be names of parameters, got {parameters!r}"
            raise ArgumentValueError("CDDExperts", "parameters", text)
        adapters = {name: self._adapter_of(base, name, options) for name in parameters}
        self._adopt(base, adapters)

    @classmethod
    def _of(cls, base: nn.Module, options: Mapping[str, Mapping[str, Any]]) -> CDDExperts:
        """Return a module with options of its own for each parameter; one that is adapted keeps its other changes."""
        changed = base if isinstance(base, CDDExperts) else None
        inner: Any = base if changed is None else changed.base
        adapters = {} if changed is None else dict(changed.adapters.items())
        adapters |= {name: cls._adapter_of(inner, name, own) for name, own in options.items()}
        self = cls.__new__(cls)
        super(CDDExperts, self).__init__()
        self._adopt(inner, adapters)
        return self

    @staticmethod
    def _adapter_of(base: nn.Module, name: str, options: Mapping[str, Any]) -> CDDAdapter:
        """Return new changes for a parameter, with a dtype and the device that suit the base unless these are given."""
        stack = stack_of(base, name, "CDDExperts")
        given = {key: value for key, value in options.items() if value is not None}
        options = dtype_and_device(base) | given
        return CDDExperts._new_adapter(stack.in_features, stack.out_features, stack.n_experts, options)

    def _adopt(self, base: nn.Module, adapters: Mapping[str, Any]) -> None:
        """Take a base and its changes."""
        self.base = base
        self.adapters = nn.ModuleDict(adapters)
        self.train(base.training)
        base.requires_grad_(requires_grad=False)

    def __getattr__(self, name: str) -> Any:
        # Models ask their modules for such things as the number of experts.
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_") or name == "base":
                raise
            return getattr(self.base, name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the outputs of the module with changed matrices.

        Parameters
        ----------
        *args, **kwargs
            Those of the base.

        Returns
        -------
        Tensor
            Or whatever the base returns.
        """
        changes: Any = {name: [adapter] for name, adapter in self.adapters.items()}
        return call_changed(self.base, changes, *args, **kwargs)

    def delta(self, name: str) -> LinearOperator:
        """Return the changes of a parameter as an operator.

        Parameters
        ----------
        name : str
            Of the parameter.

        Returns
        -------
        LinearOperator
            Of shape (experts, out_features, in_features), `alpha` included; gradients flow to the vectors.
        """
        changes: Any = self.adapters[name]
        return changes.operator()

    def _changes(self) -> dict[str, CDDAdapter]:
        found: Any = dict(self.adapters.items())
        return found

    def _prefix(self, end: str) -> str:
        return f"adapters.{end}"

    def _merged(self) -> dict[str, nn.Parameter]:
        merged = {}
        for name, adapter in self._changes().items():
            if adapter.vectors[0].is_meta:
                raise ArgumentValueError(
                    "CDDExperts", None, "the vectors are on the device meta: merge before offloading"
                )
            weight = own_weight(self.base, "CDDExperts", name)
            if is_never_called(self) and adapter.dense().any():
                text = "the module was never called: its parameters alone are read, unchanged"
                raise ArgumentValueError("CDDExperts", None, text)
            stack = stack_of(self.base, name, "CDDExperts")
            # In inference mode the new weight would become a tensor that autograd refuses for good.
            with torch.inference_mode(mode=False), torch.no_grad():
                total = weight_plus_change(as_matrices(stack, weight), adapter.vectors.forward(), adapter.gain)
                merged[name] = merged_parameter(weight, laid_out(stack, total), "CDDExperts")
        return merged
