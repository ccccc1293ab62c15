"""CDD as a method of Hugging Face PEFT, used as LoRA is. Needs the extra ``peft``. Importing it registers the method.

Map of the package; each line imports only from those below it:

- `_model`: `CDDModel`, which puts adapters into a model and takes them out
- `_loading`: the tensors of a folder put into a model, also in place, by `hotswap_adapter`
- `_target_parameters`: which parameters the settings mean, such as stacked experts
- `_layers`: the layers with their adapters: `CDDTunerLayer`, `CDDTunerParameters`, and what they share
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
from structmat.peft._layers.tuner_layer import CDDTunerLayer, CDDTunerLinear  # noqa: E402
from structmat.peft._layers.tuner_parameters import CDDTunerParameters  # noqa: E402
from structmat.peft._loading import hotswap_adapter  # noqa: E402
from structmat.peft._model import CDDModel  # noqa: E402

register(CDDConfig, CDDModel)

__all__ = ["CDDConfig", "CDDModel", "CDDTunerLayer", "CDDTunerLinear", "CDDTunerParameters", "hotswap_adapter"]
