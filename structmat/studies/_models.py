"""`model_of`: what transformers knows of the model of a checkpoint, which loads many weights by other names."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from structmat._files import one_line, unwrapped

__all__ = ["Model", "model_of"]


@dataclass(frozen=True)
class Model:
    """The modules of a model, and which weight is whose; by default nothing is known, and names are believed."""

    name: str | None = None
    """Of its class, and who knows it."""
    problem: str = ""
    """Why nothing is known although config.json names it."""
    modules: set[str] | None = None
    """Paths of all modules."""
    layers: Mapping[str, bool] = field(default_factory=dict)
    """Linear layers that can be adapted, by path: whether they store their weight as inputs by outputs."""
    loaded_as: Callable[[str], str] = unwrapped
    """Name of the parameter that a stored weight becomes as it is; none, if it becomes a part of one."""

    def layer_of(self, key: str) -> str:
        """Return the path of the linear layer that a stored weight may be that of; none, if it is not."""
        path, _, kind = self.loaded_as(key).rpartition(".")
        return path if kind == "weight" and (self.name is None or path in self.layers) else ""


def model_of(*paths: Path) -> Model:
    """Return what is known of the model of the first checkpoint that has a config.json of transformers beside it."""
    for path in paths:
        file = (path if path.is_dir() else path.parent) / "config.json"
        try:
            kind = json.loads(file.read_text(encoding="utf-8"))["model_type"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
        try:
            with warnings.catch_warnings(action="ignore"):  # of how a model is built that is not used
                return _built(file.parent)
        except Exception as error:  # noqa: BLE001  # of any model, and any version of transformers
            why = one_line(error).partition(". ")[0]
            return Model(problem=f"the modules of {kind} are not known ({file}: {why})")
    return Model()


def _built(folder: Path) -> Model:
    """Return what the model of a folder tells, built without memory for its weights."""
    import torch  # noqa: PLC0415  # an extra
    import transformers  # noqa: PLC0415  # an extra
    from transformers.conversion_mapping import get_model_conversion_mapping  # noqa: PLC0415
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key  # noqa: PLC0415

    from structmat.torch._other_tools import has_transposed_weight, reads_weight  # noqa: PLC0415

    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    kind = getattr(transformers, *(config.architectures or ["architectures"])[:1])
    if not issubclass(kind, transformers.PreTrainedModel):  # never call what a file names
        raise TypeError(f"{kind.__name__} is no model")
    with torch.device("meta"):
        model = kind(config)
    modules = dict(model.named_modules())
    layers: dict[str, bool] = {}
    for path, module in modules.items():
        parent, _, name = path.rpartition(".")
        if isinstance(module, torch.nn.Linear) or has_transposed_weight(module):
            layers |= {} if reads_weight(modules[parent], name) else {path: has_transposed_weight(module)}
    changes, state = get_model_conversion_mapping(model), model.state_dict()
    by_kind = [[each for each in changes if isinstance(each, way)] for way in (WeightRenaming, WeightConverter)]

    def loaded_as(key: str) -> str:
        key = unwrapped(key)
        name, converted = rename_source_key(key, *by_kind, model.base_model_prefix, state)
        if name not in state and key in state:  # as `from_pretrained` does
            name, converted = key, None
        return "" if converted else name

    return Model(f"{kind.__name__} of transformers {transformers.__version__}", "", {*modules}, layers, loaded_as)
