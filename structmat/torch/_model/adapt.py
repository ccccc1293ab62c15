"""A whole model: its layers adapted, and plain again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import log2
from typing import Any

import torch
from torch import nn

from structmat._errors import ArgumentTypeError, ArgumentValueError, naming, warn_caller
from structmat._files import counted, first_names
from structmat.operators import CDDLayout
from structmat.torch._distributed import whole_numel
from structmat.torch._model.model_state import as_before_on_error
from structmat.torch._model.parameter_names import places_of, text_of_unreached
from structmat.torch._model.targets import Targets, matches, meant, require_matches, targeted, unreached
from structmat.torch._model.wrapping import (
    adapted_layers,
    changes_of,
    recorded,
    require_alone,
    require_no_lazy_parameters,
    train_only,
    unwrap_layers,
    wrap_layers,
)

__all__ = ["AdapterSummary", "adapt", "remove_adapters"]


@dataclass(frozen=True)
class AdapterSummary:
    """What an adapter adds to a model; printed, three lines.

    Attributes
    ----------
    layers : tuple of str
        Paths of the adapted layers, and of the adapted parameters of experts.
    n_parameters : int
        Of the adapter.
    n_trainable : int
        All trainable parameters of the model, those outside the adapter included.
    n_total : int
        All parameters of the model.
    n_bytes : int
        Of the adapter's parameters.
    flops_per_token : int
        Real operations that the changes add to a forward pass, for each token: ``2.5 b log2(b)`` for a real transform
        of length b, 8 for a complex product and addition, 1 for a real product. Of experts one is counted.
    dense_flops_per_token : int
        Operations of the adapted layers themselves, ``2 rows cols`` each.

    See Also
    --------
    adapt : Returns one.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import adapt
    >>> summary = adapt(torch.nn.Sequential(torch.nn.Linear(8, 8)))
    >>> summary.n_parameters, summary.n_trainable, summary.n_total
    (24, 24, 96)
    """

    layers: tuple[str, ...]
    n_parameters: int
    n_trainable: int
    n_total: int
    n_bytes: int
    flops_per_token: int
    dense_flops_per_token: int

    @classmethod
    def of(cls, model: nn.Module) -> AdapterSummary:
        """Return what the adapter of a model adds to it."""
        adapters = changes_of(model)
        sizes = {parameter: whole_numel(parameter) for parameter in model.parameters()}
        vectors = {vector for adapter in adapters.values() for vector in adapter.parameters()}
        return cls(
            layers=tuple(adapters),
            n_parameters=sum(adapter.n_parameters for adapter in adapters.values()),
            n_trainable=sum(size for parameter, size in sizes.items() if parameter.requires_grad),
            n_total=sum(sizes.values()),
            n_bytes=sum(vector.numel() * vector.element_size() for vector in vectors),
            flops_per_token=sum(_flops(adapter.layout) for adapter in adapters.values()),
            dense_flops_per_token=sum(2 * adapter.out_features * adapter.in_features for adapter in adapters.values()),
        )

    def __str__(self) -> str:
        share = 100 * self.n_trainable / max(self.n_total, 1)
        added = 100 * self.flops_per_token / max(self.dense_flops_per_token, 1)
        return (
            f"adapter: {counted(len(self.layers), 'layer')}, {self.n_parameters:,} parameters, {self.n_bytes:,} bytes\n"
            f"trainable: {self.n_trainable:,} of {self.n_total:,} parameters ({share:.3g} %)\n"
            f"added operations: {self.flops_per_token:,} per token, {added:.3g} % of the adapted layers' own"
        )


def _flops(layout: CDDLayout) -> int:
    """Return the real operations of one product; `AdapterSummary` says how they are counted."""
    total = 0.0
    for shape in layout.vector_shapes:
        if len(shape) == 1:
            total += shape[0]
        else:
            p, q, b = shape
            total += (p + q) * 2.5 * b * log2(b) + (8 * p * q - 2 * p) * (b // 2 + 1)
    return round(total)


def adapt(
    model: nn.Module,
    targets: Targets = "all-linear",
    *,
    parameters: Targets = (),
    exclude: Targets = (),
    train: Targets = (),
    **options: Any,
) -> AdapterSummary:
    """Freeze a model and add a trainable change to its layers, in place.

    Layers that were adapted by earlier calls stay as they are, and trainable.

    Parameters
    ----------
    model : Module
        The model.
    targets : "all-linear", a regular expression, or names, default "all-linear"
        Names are paths or ends of paths, such as ``["query", "value"]``; any other string is a regular expression for
        whole paths. Linear layers, transformers' ``Conv1D``, convolutions, embeddings and `torch.nn.MultiheadAttention`
        can be adapted; "all-linear" means the first two, except the layer that computes the logits of a language model
        of transformers. May be empty if `parameters` is not.
    parameters : regular expression or names, optional
        Parameters that hold matrices and are no layer's weight, likewise: those of shape (experts, rows, columns), the
        stacked experts of transformers, such as ``["experts.gate_up_proj", "experts.down_proj"]``, get a change for
        each expert. Names in checkpoints mean them too: ``["w1", "w3", "w2"]``, or ``["gate_proj", "up_proj",
        "down_proj"]``; what is fused in one parameter is named as a whole. Names, but no regular expression, also mean
        parameters of two axes.
    exclude : regular expression or names, optional
        Layers to leave out, such as ``["lm_head"]``, and all in modules of such names.
    train : regular expression or names, optional
        Modules that stay trainable, such as ``["classifier"]``; they are not adapted, and `save_adapter` writes them.
        The bases of layers in them that are adapted already stay frozen.
    **options
        Arguments of `CDDAdapter`: `n_factors`, `block_size`, `alpha`, `dropout`, `init`, ... Without `dtype` the
        vectors have the dtype of their layer, and float32 where that is float16 or bfloat16; see the notes.

    Returns
    -------
    AdapterSummary
        Parameters, operations and bytes, as text too.

    Raises
    ------
    ValueError
        If a name matches nothing, a layer that was named is adapted already, an option is wrong, or the model has lazy
        parameters; it has not changed then.
    TypeError
        If a layer that was named cannot be adapted, one is split by tensor parallelism, there is no such option, or an
        argument is of a wrong kind; the model has not changed then.

    Warns
    -----
    RuntimeWarning
        If weights of experts are meant that are stacked in one parameter, as in mixtures of experts of transformers,
        by its name or by those of the matrices in it, such as "gate_proj" or "w1", in `targets`: they stay as they are
        unless `parameters` name them. If a module that is trained as it is holds float16. Also after the first forward
        pass in training, if that did not call some adapted layers.

    See Also
    --------
    save_adapter, load_adapter : Files of what is trained.
    remove_adapters : Makes the model plain again, with or without the changes.
    structmat.peft : The same in Hugging Face PEFT: several adapters, switched or mixed.

    Notes
    -----
    Layers in half precision have vectors of float32, as by default in PEFT. AdamW squares gradients, and below 2e-4
    squares are zero in float16: it divides by zero, and the vectors become NaN. In bfloat16 a step of 1e-3 beside a
    number above 0.5 is lost to rounding. Outputs keep the dtype of the layer.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import adapt
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> print(adapt(model, exclude=["2"]))
    adapter: 1 layer, 24 parameters, 96 bytes
    trainable: 24 of 114 parameters (21.1 %)
    added operations: 166 per token, 130 % of the adapted layers' own
    """
    if not isinstance(model, nn.Module):
        raise ArgumentTypeError("adapt", "model", f"must be a torch.nn.Module, got {type(model).__name__}")
    require_no_lazy_parameters(model, "adapt")
    modules = {path: module for path, module in model.named_modules(remove_duplicate=False) if path}
    kept = [path for path in modules if matches(path, train, "train")]
    require_matches(train, modules, "train")
    require_matches(exclude, modules, "exclude")
    left_out = [*kept, *(path for path in modules if matches(path, exclude, "exclude"))]
    places = places_of(model)
    stacks = meant(places, parameters, left_out)
    experts = {path: names for path, names in unreached(places, targets, left_out).items() if path not in stacks}
    found = targeted(model, modules, targets, left_out, experts, stacks)
    _require_frozen(found, [*kept, *recorded(model)])
    require_alone(stacks, [*found, *adapted_layers(model), *kept, *recorded(model)], "adapt", "parameters")
    if experts:
        warn_caller(f"adapt: {text_of_unreached(experts, argument='parameters')}", RuntimeWarning)
    if of_float16 := [path for path in kept if any(p.dtype == torch.float16 for p in modules[path].parameters())]:
        text = (
            f"{first_names(of_float16, 3)} is trained in float16, where squares of small gradients are zero and AdamW "
            "divides by them: load the model in bfloat16 or float32, or give the optimiser eps=1e-4"
        )
        warn_caller(f"adapt: {text}", RuntimeWarning)
    with as_before_on_error(model):
        wrap_layers(model, dict.fromkeys([*found, *stacks], options))
        train_only(model, kept)
        return AdapterSummary.of(model)


def remove_adapters(model: nn.Module, *, merge: bool = False) -> None:
    """Replace adapted layers by their bases, in place: a plain model again.

    Parameters
    ----------
    model : Module
        An adapted model.
    merge : bool, default False
        Whether the weights get the changes. Otherwise they are as before `adapt`, bit for bit. Modules that were
        trained as they are, by ``train=``, stay as they are now.

    Raises
    ------
    ValueError
        If there is no adapted layer, one has no base or is the model, one with a change was never called, or a merged
        weight held NaN or infinity; nothing has changed then.
    TypeError
        If a weight to merge into is quantised, split among processes (FSDP, ZeRO-3 of DeepSpeed) or of another special
        kind, or a layer of its own class multiplies by something else; nothing has changed then.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import adapt, remove_adapters
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
    >>> _ = adapt(model, init="normal")
    >>> trained = model(torch.ones(4))
    >>> remove_adapters(model, merge=True)
    >>> type(model[0]).__name__, torch.allclose(model(torch.ones(4)), trained, atol=1e-5)
    ('Linear', True)
    """
    if not isinstance(model, nn.Module):
        raise ArgumentTypeError("remove_adapters", "model", f"must be a torch.nn.Module, got {type(model).__name__}")
    layers = adapted_layers(model)
    if not layers:
        raise ArgumentValueError("remove_adapters", "model", "has no adapted layer")
    merged = []
    for path, layer in layers.items():
        if layer is model:
            raise ArgumentValueError("remove_adapters", "model", "is itself the layer; take its base, or to_linear()")
        if layer.base is None:
            text = (
                f"has no base layer to put back at {path}, which is trained from scratch: replace it by its to_linear()"
            )
            raise ArgumentValueError("remove_adapters", "model", text)
        with naming(path):
            merged.append(layer._merged() if merge else {})
    with as_before_on_error(model):
        for layer, weights in zip(layers.values(), merged, strict=True):
            layer._set_merged(weights)
        unwrap_layers(model, layers.values())


def _require_frozen(layers: Iterable[str], trained: Sequence[str]) -> None:
    """Refuse to train parts of layers that are adapted: files hold the changes of these alone."""
    for path in layers:
        inside = [other for other in trained if other.startswith(f"{path}.")]
        if inside:
            raise ArgumentValueError("adapt", "train", f"match {inside[0]}, a part of the adapted layer {path}")
