"""CDD as a method of Hugging Face PEFT, used as LoRA is. Needs the extra ``peft``. Importing it registers the method.

Map of the package; each file imports only from those below it:

- `_hotswap`: `hotswap_adapter`, vectors replaced in place by those of a folder
- `_model`: `CDDModel`, which puts adapters into a model and takes them out
- `_target_parameters`: which parameters the settings mean, such as stacked experts
- `_parameter_layer`: `CDDTunerParameters`, a module of which parameters have adapters
- `_weighted_sums`: the changes of an adapter that is a weighted sum of others
- `_layer`: `CDDTunerLinear`, a layer with its adapters; its kind and the mathematics are those of `structmat.torch`
- `_mixture`: the changes of a layer in a mixed batch, computed at once
- `_tuner_layer`: what all layers with adapters share, which is merging and scaling
- `_sum`: several changes of one layer under the name of one adapter
- `_config`: `CDDConfig`, the settings, as they stand in ``adapter_config.json``
- `_registration`: what makes "CDD" one of PEFT's methods; the versions it works with

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
from structmat.peft._hotswap import hotswap_adapter  # noqa: E402
from structmat.peft._layer import CDDTunerLinear  # noqa: E402
from structmat.peft._model import CDDModel  # noqa: E402
from structmat.peft._parameter_layer import CDDTunerParameters  # noqa: E402

register(CDDConfig, CDDModel)

__all__ = ["CDDConfig", "CDDModel", "CDDTunerLinear", "CDDTunerParameters", "hotswap_adapter"]
