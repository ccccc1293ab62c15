"""`adapt`: freeze a model, wrap its layers, say what that costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import nn

from structmat._array_tools import ArgumentTypeError, ArgumentValueError, warn_caller
from structmat.torch._layers.adapted_layer import AdaptedLayer
from structmat.torch._layers.frozen_base import has_transposed_weight
from structmat.torch._model.costs import AdapterSummary, summarise
from structmat.torch._model.patterns import by_layer
from structmat.torch._model.targets import Targets, modules_to_train, targeted, unreached_experts
from structmat.torch._model.wrapping import freeze_others, require_no_lazy_parameters, wrap_layers

__all__ = ["adapt"]


def adapt(
    model: nn.Module,
    targets: Targets = "all-linear",
    *,
    name: str = "default",
    exclude: Targets = (),
    train: Targets = (),
    n_factors_pattern: Mapping[str, int] | None = None,
    block_size_pattern: Mapping[str, int | Literal["min", "toeplitz"]] | None = None,
    alpha_pattern: Mapping[str, float] | None = None,
    share_circulants: bool = False,
    **options: Any,
) -> AdapterSummary:
    """Freeze a model and add a trainable change to its layers, in place.

    Adapters of the same name, of earlier calls, stay trainable, and those of other names are frozen.

    Parameters
    ----------
    model : Module
        The model. Layers that are adapted already get one more adapter; the changes add up.
    targets : "all-linear", a regular expression, or names, default "all-linear"
        Names are paths or ends of paths, such as ``["query", "value"]``; any other string is a regular expression for
        whole paths. Linear layers, transformers' ``Conv1D``, convolutions (with kernel size and stride 1, one group and
        no padding) and embeddings can be adapted; "all-linear" means the first two, except the layer that computes the
        logits of a language model of transformers.
    name : str, default "default"
        Of the adapter.
    exclude : regular expression or names, optional
        Layers to leave out, such as ``["lm_head"]``, and all in modules of such names.
    train : regular expression or names, optional
        Modules that stay trainable, such as ``["classifier"]``; they are not adapted, and `save_adapter` writes them.
    n_factors_pattern, block_size_pattern, alpha_pattern : dict, optional
        Other values of `n_factors`, `block_size` and `alpha` for some layers, by paths, ends of paths, or regular
        expressions for either, such as ``{"layer.0.value": 64}``. The first key that matches a layer counts.
    share_circulants : bool, default False
        Whether layers share their circulants, each with diagonals of its own, if their paths differ in whole numbers
        between dots only, as in repeated blocks, and sizes, options, dtypes and devices are the same. Not with
        ``init="gradient"``.
    **options
        Arguments of `CDDAdapter`: `n_factors`, `block_size`, `alpha`, `dropout`, `init`, `mode`, ... With
        ``init="gradient"`` each layer uses the gradient of its weight: run ``loss.backward()`` on the model first.

    Returns
    -------
    AdapterSummary
        Parameters, operations and bytes, layer by layer and as text.

    Raises
    ------
    ValueError
        If a name matches nothing, a pattern has a key that matches no adapted layer, or only layers that earlier keys
        match, an option is wrong, no layers can share circulants, a gradient is missing or zero, or the model has lazy
        parameters; it has not changed then.
    TypeError
        If a layer that was named cannot be adapted, one is split by tensor parallelism, there is no such option, or an
        argument is of a wrong kind; the model has not changed then.

    Warns
    -----
    RuntimeWarning
        If weights of experts are meant that are stacked in one parameter, as in mixtures of experts of transformers:
        they stay as they are.

    See Also
    --------
    param_groups : Parameters and learning rates for an optimiser.
    save_adapter, load_adapter : Files of what is trained.
    merge_adapters, remove_adapters, disable_adapters : For adapted models.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import adapt
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> print(adapt(model, exclude=["2"]))
    adapter 'default': 1 layer, 24 parameters, 96 bytes
    trainable: 24 of 114 parameters (21.1 %)
    added operations: 166 per token, 130 % of the adapted layers' own; 2.5 b log2(b) for a transform of b values
    """
    if not isinstance(share_circulants, bool):
        raise ArgumentTypeError("adapt", "share_circulants", f"must be True or False, got {share_circulants!r}")
    if not isinstance(model, nn.Module):
        raise ArgumentTypeError("adapt", "model", f"must be a torch.nn.Module, got {type(model).__name__}")
    require_no_lazy_parameters(model, "adapt")
    kept = modules_to_train(model, train, "adapt")
    inside = {id(module) for outer in kept for module in outer.modules()}
    found = {path: m for path, m in targeted(model, targets, exclude, name, inside).items() if id(m) not in inside}
    if experts := unreached_experts(model, targets):
        warn_caller(
            f"adapt: weights of experts that are stacked in one parameter are not adapted: {', '.join(experts)}",
            RuntimeWarning,
        )
    if not found:
        raise ArgumentValueError(
            "adapt", None, f"everything that targets {targets!r} match is to stay trainable by train {train!r}"
        )

    patterns = {"n_factors": n_factors_pattern, "block_size": block_size_pattern, "alpha": alpha_pattern}
    settings = by_layer(found, options, patterns)
    if share_circulants and any(each.get("init") == "gradient" for each in settings.values()):
        text = 'needs another init than "gradient", which gives each layer a circulant of its own'
        raise ArgumentValueError("adapt", "share_circulants", text)
    each = {path: _options(module, path, settings[path]) for path, module in found.items()}
    wrap_layers(model, each, name, share=share_circulants)
    freeze_others(model, [name], kept)
    return summarise(model, name)


def _options(module: nn.Module, path: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of one layer, with the gradient of its weight where that is asked for."""
    if options.get("init") != "gradient" or "gradient" in options:
        return options
    base = module.base if isinstance(module, AdaptedLayer) else module
    gradient = getattr(getattr(base, "weight", None), "grad", None)
    if gradient is None:
        raise ArgumentValueError(
            "adapt", "init", f'"gradient" needs the gradient of {path}.weight; run loss.backward() before'
        )
    gradient = gradient.to_dense() if gradient.is_sparse else gradient  # of an embedding
    gradient = gradient.T if has_transposed_weight(base) else gradient
    return {**options, "gradient": gradient.flatten(1)}
