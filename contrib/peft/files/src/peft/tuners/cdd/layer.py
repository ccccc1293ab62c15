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

import math
import warnings
from typing import Any, Optional

import torch
import torch.nn.functional as F
from torch import nn
from transformers.pytorch_utils import Conv1D

from peft.tuners.tuners_utils import BaseTunerLayer, _get_in_out_features, check_adapters_to_merge
from peft.utils import quantization_extra_repr, resolve_quantization_backend

from .config import CDDConfig


class CDDAdapter(nn.Module):
    """
    The change of one weight: `alpha` times a product of diagonal matrices D and block circulant matrices C.

    With three factors the change is `alpha * D @ C @ D`. A block circulant matrix is a p x q grid of b x b circulant
    matrices, of which the last rows and columns are cropped. It is stored as the first columns of the circulant
    matrices, a tensor of shape (p, q, b); a diagonal matrix is stored as its diagonal.

    With more than three factors, one block circulant matrix has the shape of the weight. All others are square, with
    the smaller side of the weight.
    """

    def __init__(self, in_features: int, out_features: int, config: CDDConfig) -> None:
        super().__init__()
        self.alpha = config.alpha
        self.dropout = config.dropout

        named_sizes = {"min": min(in_features, out_features), "toeplitz": in_features + out_features - 1}
        b = named_sizes.get(config.block_size, config.block_size)
        if b > named_sizes["toeplitz"]:
            raise ValueError(
                f"`block_size` must be at most in_features + out_features - 1 = {named_sizes['toeplitz']}, got {b}"
            )

        # rows and columns of the factors, in the order of the product
        whole = [(out_features, out_features), (out_features, in_features), (in_features, in_features)]
        squares = [(named_sizes["min"], named_sizes["min"])] * (config.n_factors - 3)
        self.factor_shapes = squares + whole if in_features > out_features else whole + squares

        # The vectors are stored divided by these scales. A step of Adam changes each stored entry by about the learning
        # rate. Without the square root, the product with a circulant matrix would change by more than that with a
        # diagonal matrix, since it has more entries in each row.
        self.scales = [
            config.factor_scale / math.sqrt(columns if i % 2 == 1 else 1)
            for i, (_, columns) in enumerate(self.factor_shapes)
        ]
        self.vectors = nn.ParameterList(
            torch.empty((math.ceil(rows / b), math.ceil(columns / b), b) if i % 2 == 1 else rows)
            for i, (rows, columns) in enumerate(self.factor_shapes)
        )
        self.reset_parameters(config.init_weights)

    @torch.no_grad()
    def reset_parameters(self, init_weights: bool) -> None:
        # Diagonals of random signs and circulants of variance 1 / columns keep the variance of a random input
        for vector, scale, (_, columns) in zip(self.vectors, self.scales, self.factor_shapes):
            if vector.ndim == 1:
                vector.bernoulli_(0.5).mul_(2 / scale).sub_(1 / scale)
            else:
                vector.normal_(0, columns**-0.5 / scale)
        if init_weights:
            # exactly one factor is zero, so that the change is zero and this factor has a gradient
            nn.init.zeros_(self.vectors[0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.alpha * self.product(F.dropout(x, self.dropout, self.training))

    def product(self, x: torch.Tensor) -> torch.Tensor:
        # There is no FFT in half precision on CPU, and on GPU only for sizes that are powers of two. The input itself is
        # not cast: its product with the first diagonal has this dtype, and no copy is kept for the backward pass.
        dtype = torch.promote_types(torch.promote_types(x.dtype, self.vectors[0].dtype), torch.float32)
        for vector, scale, (rows, _) in reversed(list(zip(self.vectors, self.scales, self.factor_shapes))):
            factor = scale * vector.to(dtype)
            x = x * factor if factor.ndim == 1 else block_circulant_product(x, factor, rows)
        return x

    @torch.no_grad()
    def dense(self) -> torch.Tensor:
        """The change as a matrix of shape (out_features, in_features)."""
        last = self.vectors[-1]
        return self.alpha * self.product(torch.eye(last.shape[0], dtype=last.dtype, device=last.device)).T


def block_circulant_product(x: torch.Tensor, circulants: torch.Tensor, rows: int) -> torch.Tensor:
    """Multiplies the last axis of x by a block circulant matrix, cropped to a number of rows."""
    p, q, b = circulants.shape
    if x.numel() == 0:
        # FFTs of empty tensors are not supported on CPU
        return x.new_zeros(*x.shape[:-1], rows)

    blocks = F.pad(x, (0, q * b - x.shape[-1])).unflatten(-1, (q, b))
    spectrum, grid = torch.fft.rfft(blocks), torch.fft.rfft(circulants)
    if p == 1 or q == 1:
        # always so if the block size is one of the sides of the weight; faster than a product of thin matrices
        spectrum = (spectrum.unsqueeze(-3) * grid).sum(-2)
    else:
        spectrum = torch.einsum("...qf,pqf->...pf", spectrum, grid)
    return torch.fft.irfft(spectrum, n=b).flatten(-2)[..., :rows]


class CDDLayer(BaseTunerLayer):
    # All names of layers that may contain (trainable) adapter weights
    adapter_layer_names = ("cdd_adapters",)
    # All names of other parameters that may contain adapter-related parameters
    other_param_names = ()

    def __init__(self, base_layer: nn.Module, **kwargs) -> None:
        self.base_layer = base_layer
        self.quantization_backend = resolve_quantization_backend(
            self.get_base_layer(), get_apply_tensor_subclass=kwargs.get("get_apply_tensor_subclass")
        )
        self.cdd_adapters = nn.ModuleDict({})
        # Mark the weight as unmerged
        self._disable_adapters = False
        self.merged_adapters = []
        # flag to enable/disable casting of input to weight dtype during forward call
        self.cast_input_dtype_enabled = True
        self.kwargs = kwargs

        in_features, out_features = _get_in_out_features(self.get_base_layer())
        if (in_features is None) or (out_features is None):
            raise TypeError(f"Unsupported layer type {type(self.get_base_layer())}")
        self.in_features, self.out_features = in_features, out_features

    def update_layer(self, adapter_name: str, config: CDDConfig, **kwargs) -> None:
        self.cdd_adapters[adapter_name] = CDDAdapter(self.in_features, self.out_features, config)
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)


class CDDLinear(nn.Module, CDDLayer):
    """
    CDD implemented in a dense layer.
    """

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: CDDConfig, **kwargs) -> None:
        super().__init__()
        CDDLayer.__init__(self, base_layer, **kwargs)
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config=config)

    def merge(self, safe_merge: bool = False, adapter_names: Optional[list[str]] = None) -> None:
        """
        Merge the active adapter weights into the base weights

        Args:
            safe_merge (`bool`, *optional*):
                If `True`, the merge operation will be performed in a copy of the original weights and check for NaNs
                before merging the weights. This is useful if you want to check if the merge operation will produce
                NaNs. Defaults to `False`.
            adapter_names (`List[str]`, *optional*):
                The list of adapter names that should be merged. If `None`, all active adapters will be merged.
                Defaults to `None`.
        """
        adapter_names = check_adapters_to_merge(self, adapter_names)
        if not adapter_names:
            # no adapter to merge
            return

        for active_adapter in adapter_names:
            if active_adapter in self.cdd_adapters.keys():
                weight = self.get_base_weight()
                merged = (weight + self.get_delta_weight(active_adapter)).to(weight.dtype)
                if safe_merge and not torch.isfinite(merged).all():
                    raise ValueError(
                        f"NaNs detected in the merged weights. The adapter {active_adapter} seems to be broken"
                    )
                self.set_base_weight(merged)
                self.merged_adapters.append(active_adapter)

    def unmerge(self) -> None:
        """
        This method unmerges all merged adapter layers from the base weights.
        """
        if not self.merged:
            warnings.warn("Already unmerged. Nothing to do.")
            return

        while len(self.merged_adapters) > 0:
            active_adapter = self.merged_adapters.pop()
            if active_adapter in self.cdd_adapters.keys():
                weight = self.get_base_weight()
                self.set_base_weight((weight - self.get_delta_weight(active_adapter)).to(weight.dtype))

    def get_delta_weight(self, adapter: str) -> torch.Tensor:
        """
        Compute the delta weight for the given adapter, in the layout of the base weight.

        Args:
            adapter (`str`):
                The name of the adapter for which the delta weight should be computed.
        """
        delta_weight = self.cdd_adapters[adapter].dense()
        return delta_weight.T if isinstance(self.get_base_layer(), Conv1D) else delta_weight

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.disable_adapters:
            if self.merged:
                self.unmerge()
            result = self.base_layer(x, *args, **kwargs)
        elif self.merged:
            result = self.base_layer(x, *args, **kwargs)
        else:
            result = self.base_layer(x, *args, **kwargs)
            if self.quantization_backend is not None:
                result = self.quantization_backend.maybe_clone_base_result(result)
            result_dtype = result.dtype
            for active_adapter in self.active_adapters:
                if active_adapter not in self.cdd_adapters.keys():
                    continue
                result = result + self.cdd_adapters[active_adapter](x)
            result = result.to(result_dtype)

        return result

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        return True

    def __repr__(self) -> str:
        rep = super().__repr__()
        return "cdd." + rep

    def extra_repr(self) -> str:
        return quantization_extra_repr(self)
