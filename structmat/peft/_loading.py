"""The tensors of a folder put into a model of PEFT: what PEFT asks where it loads them, and `hotswap_adapter`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from peft import PeftModel
from peft.utils import get_peft_model_state_dict, load_peft_weights
from torch import Tensor, nn

from structmat._adapter_format import FACTOR_KEY, PREFIX, factor_key
from structmat._errors import ArgumentTypeError, ArgumentValueError, as_own, warn_caller
from structmat._files import first_names, unwrapped
from structmat.peft._config import CDDConfig
from structmat.peft._layers.tuner_parameters import CDDTunerParameters
from structmat.torch import CDDAdapter
from structmat.torch._changes.dense import wide_dtype
from structmat.torch._distributed import unwrapped_model
from structmat.torch._files.folder import Stored, read_folder, require_finite, sorted_state
from structmat.torch._files.load import plan_vectors, require_alike
from structmat.torch._files.low_bits import unpacked_state
from structmat.torch._files.replacement import Replacement, taking_values
from structmat.torch._model.model_state import as_before_on_error

__all__ = ["hotswap_adapter", "tensors_for"]

_OWNER = "hotswap_adapter"


def tensors_for(model: nn.Module, adapter_name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a file for a model that its settings have adapted.

    Names in settings that were written before experts could be adapted mean experts now, for which such a file has
    nothing. They stay as they are then.
    """
    state = unpacked_state(state, "CDDModel")
    matches = (FACTOR_KEY.match(key) for key in state)
    if not any(found and found["parameter"] for found in matches):
        left = []
        for path, layer in model.named_modules():
            if isinstance(layer, CDDTunerParameters) and adapter_name in layer.cdd_adapters:
                layer.delete_adapter(adapter_name)
                left.append(path.removeprefix(PREFIX))
        if left:
            text = f"the file has no vectors of parameters that its settings mean, which stay as they are: {left}"
            warn_caller(text, RuntimeWarning, through=("peft",))
    return state


def hotswap_adapter(
    model: nn.Module, folder: str | os.PathLike[str], adapter_name: str = "default", **options: Any
) -> None:
    """Replace the vectors of an adapter, and what was trained beside it, by those of a folder, in place.

    The adapter keeps its name, its parameters and its settings, so that a compiled model is not compiled again.

    Parameters
    ----------
    model : PeftModel
        With an adapter of this method for the same layers; compiled by `torch.compile` or not.
    folder : path-like or str
        What ``save_pretrained`` or `structmat.torch.save_adapter` wrote, or a name on the Hub.
    adapter_name : str, default "default"
        Which adapter of the model is replaced.
    **options
        For reading from the Hub: ``subfolder``, ``revision``, ``token``, ``cache_dir``.

    Raises
    ------
    ValueError
        If there is no adapter of that name, it is merged now, the folder holds another method, other layers, shapes or
        scales, or a tensor with NaN or a vector with infinity, or parameters are on the device meta, or in the hands of
        DeepSpeed or FSDP 1; nothing has changed then.
    TypeError
        If the model is no model of PEFT.

    See Also
    --------
    structmat.torch.using_adapter : Serves another folder for a while, without PEFT.

    Notes
    -----
    `peft.utils.hotswap.hotswap_adapter` does this for LoRA. Where the folder has another `alpha`, which is a constant
    in compiled code, the first diagonals are multiplied by the ratio of the two instead: the changes are those of the
    folder, and no call like ``prepare_model_for_compiled_hotswap`` is needed before.

    Examples
    --------
    >>> import tempfile
    >>> import torch
    >>> from peft import get_peft_model
    >>> from structmat.peft import CDDConfig, hotswap_adapter
    >>> def make():
    ...     _ = torch.manual_seed(0)
    ...     return torch.nn.Sequential(torch.nn.Linear(4, 4))
    >>> serving = get_peft_model(make(), CDDConfig(target_modules=["0"]))
    >>> other = get_peft_model(make(), CDDConfig(target_modules=["0"], init_weights=False))
    >>> x = torch.ones(2, 4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     other.save_pretrained(folder)
    ...     hotswap_adapter(serving, folder)
    >>> torch.equal(serving(x), other(x))
    True
    """
    inside = unwrapped_model(model)
    if not isinstance(inside, PeftModel):
        raise ArgumentTypeError(_OWNER, "model", f"must be a model of PEFT, got {type(inside).__name__}")
    own = inside.peft_config.get(adapter_name)
    if not isinstance(own, CDDConfig):
        names = [name for name, each in inside.peft_config.items() if isinstance(each, CDDConfig)]
        text = f"must be one of this method, {first_names(names) or 'of which there is none'}, got {adapter_name!r}"
        raise ArgumentValueError(_OWNER, "adapter_name", text)
    if any(adapter_name in getattr(module, "merged_adapters", ()) for module in inside.modules()):
        text = f"{adapter_name!r} is merged into the weights now: call unmerge_adapter() first"
        raise ArgumentValueError(_OWNER, "adapter_name", text)

    def read() -> tuple[Mapping[str, Any], Mapping[str, Tensor]]:
        place = os.fspath(folder)
        return vars(CDDConfig.from_pretrained(place, **options)), load_peft_weights(place, device="cpu", **options)

    with as_own(_OWNER, "load_adapter"):
        taking_values(model, "load_adapter")
        stored = _with_alpha(own.alpha, read_folder(folder, read))
        changes = _changes_of(inside, adapter_name)
        require_alike(changes, stored)
        replacement = Replacement("load_adapter")
        for path, change in changes.items():
            plan_vectors(replacement, path, change, stored)
        # What it returns shares its memory with the model.
        state = get_peft_model_state_dict(inside, adapter_name=adapter_name, save_embedding_layers=False)
        _, _, beside = sorted_state(state, own.n_factors)
        if lacking := sorted(beside.keys() - stored.beside.keys()):
            raise ArgumentValueError(_OWNER, "folder", f"lacks {first_names(lacking, 3)}, which the adapter has")
        replacement.plan(beside, stored.beside)
    with as_before_on_error(inside) as before:
        replacement.write(before)


def _changes_of(model: nn.Module, adapter_name: str) -> dict[str, CDDAdapter]:
    """Return the changes of one adapter by the path of the layer, or of the parameter, in the plain model."""
    found = {}
    for path, change in model.named_modules():
        layer, _, end = unwrapped(path).removeprefix(PREFIX).partition(".cdd_adapters.")
        name, _, parameter = end.partition(".")
        if isinstance(change, CDDAdapter) and name == adapter_name:
            found[f"{layer}.{parameter}" if parameter else layer] = change
    return found


def _with_alpha(alpha: float, stored: Stored) -> Stored:
    """Return what a folder holds with the first diagonals of an adapter that is multiplied by another number."""
    ratio = 1.0
    if alpha != stored.options.alpha:
        if alpha == 0:
            text = f"has alpha={stored.options.alpha}, the adapter in the model 0"
            raise ArgumentValueError(_OWNER, "folder", text)
        ratio = stored.options.alpha / alpha
    vectors = {}
    for path, (first, *others) in stored.vectors.items():
        # It is rounded to the dtype of the model alone.
        scaled = ratio * first.to(wide_dtype(first))
        require_finite({factor_key(path, 0): scaled}, _OWNER, "folder")
        vectors[path] = [scaled, *others]
    return stored._replace(vectors=vectors)
