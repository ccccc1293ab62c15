"""CDD as a method of Hugging Face PEFT, used as LoRA is. Needs the extra ``peft``. Importing it registers the method.

- `_registration`: what makes "CDD" one of PEFT's methods; the versions it works with
- `_config`: `CDDConfig`, the settings, as they stand in ``adapter_config.json``
- `_lora_options`: what stands in place of options of LoRA
- `_option_kinds`: lists of names, layers and tokens
- `_stored_shapes`: a look at an adapter's file before a model is touched
- `_bases`: which layers can be adapted
- `_tuner_layer`: `CDDTunerLinear`, a layer with its adapters; the mathematics is that of `structmat.torch`
- `_loading`: whether weights fit a model, and the model as it was if they do not
- `_sharing`: circulants that layers share
- `_tuner_model`: `CDDModel`, which puts the layers in and takes them out
- `_mixed_batches`: an adapter for each sample
- `_weighted_sums`: sums of adapters as one
- `_fitted_adapter`: `FittedAdapter`, an adapter that was computed, and how well
- `_from_weights`: adapters fitted to changes of weights, in memory or in folders
- `_from_lora`: LoRA adapters turned into CDD ones
- `_to_lora`: CDD adapters turned into LoRA ones, and what that loses

>>> import torch
>>> from peft import get_peft_model
>>> import structmat.peft
>>> model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.Linear(64, 10))
>>> model = get_peft_model(model, structmat.peft.CDDConfig(target_modules=["0"]))
>>> model.print_trainable_parameters()
trainable params: 192 || all params: 5,002 || trainable%: 3.8385
"""

from __future__ import annotations

try:
    import peft as _  # noqa: F401
except ModuleNotFoundError as error:
    raise ImportError('structmat.peft needs the extra "peft": pip install "structmat[peft]"') from error

from structmat.peft._registration import register, require_supported

require_supported()

from structmat.peft._config import CDDConfig  # noqa: E402
from structmat.peft._fitted_adapter import FittedAdapter, FittedLayer  # noqa: E402
from structmat.peft._from_lora import from_lora  # noqa: E402
from structmat.peft._from_weights import from_delta, from_weights  # noqa: E402
from structmat.peft._to_lora import lora_errors, to_lora  # noqa: E402
from structmat.peft._tuner_layer import CDDTunerLinear  # noqa: E402
from structmat.peft._tuner_model import CDDModel  # noqa: E402

register(CDDConfig, CDDModel)

__all__ = [
    "CDDConfig",
    "CDDModel",
    "CDDTunerLinear",
    "FittedAdapter",
    "FittedLayer",
    "from_delta",
    "from_lora",
    "from_weights",
    "lora_errors",
    "to_lora",
]
