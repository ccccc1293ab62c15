# Copyright 2026-present the HuggingFace Inc. team.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

from __future__ import annotations

from torch import nn
from transformers.pytorch_utils import Conv1D

from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import (
    TRANSFORMERS_MODELS_TO_CDD_TARGET_MODULES_MAPPING,
    get_quantization_kwargs,
    resolve_quantization_backend,
)

from .config import CDDConfig
from .layer import CDDLayer, CDDLinear


class CDDModel(BaseTuner):
    """
    Creates a model with CDD adapters from a pretrained model. The change of each adapted weight is a product of
    diagonal and circulant matrices. The method is described in https://huggingface.co/papers/2505.00580.

    Args:
        model ([`torch.nn.Module`]): The model to which the adapter tuner layers will be attached.
        config ([`CDDConfig`]): The configuration of the CDD model.
        adapter_name (`str`): The name of the adapter, defaults to `"default"`.
        low_cpu_mem_usage (`bool`, `optional`, defaults to `False`):
            Create empty adapter weights on meta device. Useful to speed up the loading process.

    Returns:
        `torch.nn.Module`: The CDD model.

    Example:
        ```py
        >>> from transformers import AutoModelForCausalLM
        >>> from peft import CDDConfig, get_peft_model

        >>> model = AutoModelForCausalLM.from_pretrained("facebook/opt-125m")
        >>> config = CDDConfig(target_modules=["q_proj", "v_proj"])
        >>> model = get_peft_model(model, config)
        ```

    **Attributes**:
        - **model** ([`~torch.nn.Module`]) -- The model to be adapted.
        - **peft_config** ([`CDDConfig`]): The configuration of the CDD model.
    """

    prefix: str = "cdd_"
    tuner_layer_cls = CDDLayer
    target_module_mapping = TRANSFORMERS_MODELS_TO_CDD_TARGET_MODULES_MAPPING

    def _create_and_replace(
        self,
        cdd_config: CDDConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **optional_kwargs,
    ) -> None:
        if current_key is None:
            raise ValueError("Current Key shouldn't be `None`")

        if isinstance(target, CDDLayer):
            target.update_layer(adapter_name, config=cdd_config)
        else:
            new_module = self._create_new_module(cdd_config, adapter_name, target, **get_quantization_kwargs(self))
            if adapter_name not in self.active_adapters:
                # adding an additional adapter: it is not automatically trainable
                new_module.requires_grad_(False)
            self._replace_module(parent, target_name, new_module, target)

    @staticmethod
    def _create_new_module(cdd_config: CDDConfig, adapter_name: str, target: nn.Module, **kwargs) -> CDDLinear:
        base_layer = target.get_base_layer() if isinstance(target, BaseTunerLayer) else target
        backend = resolve_quantization_backend(base_layer, **kwargs)
        is_linear = isinstance(base_layer, (nn.Linear, Conv1D)) if backend is None else backend.layer_type == "linear"
        if not is_linear:
            raise TypeError(
                f"Target module {target} is not supported. Currently, only the following modules are supported: "
                "`torch.nn.Linear` (optionally quantized), `transformers.pytorch_utils.Conv1D`."
            )
        return CDDLinear(target, adapter_name, config=cdd_config, **kwargs)

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        # The vectors are stored as ModuleDict[adapter] -> ParameterList, hence the adapter name is not in the last or
        # second-to-last position.
        marker = f".cdd_adapters.{adapter_name}.vectors."
        if marker in key:
            return key.replace(marker, ".cdd_adapters.vectors.")
        return super()._remove_adapter_name_from_key(key, adapter_name)
