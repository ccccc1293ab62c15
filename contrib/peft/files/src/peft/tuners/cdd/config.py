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
from dataclasses import dataclass, field
from typing import Literal, Optional, Union

from peft.config import PeftConfig
from peft.utils import PeftType


@dataclass
class CDDConfig(PeftConfig):
    """
    This is the configuration class to store the configuration of a [`CDDModel`].

    The change of an adapted weight is `alpha * D @ C @ D`, where the matrices D are diagonal and C is a block circulant
    matrix. Its product with a vector is computed by FFTs. The method is described in
    https://huggingface.co/papers/2505.00580.

    Args:
        n_factors (`int`, *optional*, defaults to `3`):
            Odd and at least 3: the number of diagonals and circulants. A square layer of n features takes `n_factors *
            n` parameters.
        block_size (`int, "min" or "toeplitz"`, *optional*, defaults to `"min"`):
            Side of the circulants; the last blocks are cropped. "min" is the smaller of a layer's numbers of features,
            which is the fastest and has the fewest parameters; "toeplitz" is one less than their sum.
        alpha (`float`, *optional*, defaults to `1.0`):
            Factor of the change; not trained. Unlike LoRA's it is not divided by anything. With Adam-like optimisers
            doubling it is similar to doubling the learning rate.
        dropout (`float`, *optional*, defaults to `0.0`):
            The share of the inputs of the change that is set to zero in training, at random; at least 0 and less than
            1.
        factor_scale (`float`, *optional*, defaults to `30.0`):
            Positive. Diagonals are this times the trained vectors, circulants of n columns this over the root of n, so
            that learning rates of LoRA, 1e-4 to 1e-3, suit layers of every size.
        target_modules (`Optional[Union[List[str], str]]`):
            The names of the modules to apply the adapter to. If this is specified, only the modules with the specified
            names will be replaced. When passing a string, a regex match will be performed. When passing a list of
            strings, either an exact match will be performed or it is checked if the name of the module ends with any
            of the passed strings. If this is specified as 'all-linear', then all linear modules are chosen, excluding
            the output layer. If this is not specified, modules will be chosen according to the model architecture. If
            the architecture is not known, an error will be raised -- in this case, you should specify the target
            modules manually.
        exclude_modules (`Optional[Union[List[str], str]]`):
            The names of the modules to not apply the adapter. When passing a string, a regex match will be performed.
            When passing a list of strings, either an exact match will be performed or it is checked if the name of the
            module ends with any of the passed strings.
        init_weights (`bool`):
            Whether to perform initialization of adapter weights. With the default, `True`, the change of each weight
            is zero. With `False` it is random; don't change this setting, except if you know exactly what you're
            doing.
        bias (`str`):
            Bias type for CDD. Can be `'none'`, `'all'` or `'cdd_only'`.
        modules_to_save (`Optional[List[str]]`):
            List of modules apart from adapter layers to be set as trainable and saved in the final checkpoint.
        layers_to_transform (`Optional[Union[List[int], int]]`):
            The layer indices to transform. If a list of ints is passed, it will apply the adapter to the layer indices
            that are specified in this list. If a single integer is passed, it will apply the transformations on the
            layer at this index.
        layers_pattern (`Optional[Union[List[str], str]]`):
            The layer pattern name, used only if `layers_to_transform` is different from `None`.
    """

    n_factors: int = field(
        default=3,
        metadata={
            "help": "Number of diagonals and circulants: odd, at least 3.",
        },
    )
    block_size: int | Literal["min", "toeplitz"] = field(
        default="min",
        metadata={
            "help": "Side of the circulants; 'min' is the smaller of a layer's numbers of features, 'toeplitz' their sum less one.",
        },
    )
    alpha: float = field(
        default=1.0,
        metadata={
            "help": "What the change is multiplied by; not trained.",
        },
    )
    dropout: float = field(
        default=0.0,
        metadata={
            "help": "Share of the change's inputs that are set to zero in training.",
        },
    )
    factor_scale: float = field(
        default=30.0,
        metadata={
            "help": "Diagonals over their trained vectors; circulants have a root less.",
        },
    )
    target_modules: Optional[Union[list[str], str]] = field(
        default=None,
        metadata={
            "help": "List of module names or regex expression of the module names to replace with CDD.",
            "example": "For example, ['q', 'v'] or '.*decoder.*(SelfAttention|EncDecAttention).*(q|v)$' ",
        },
    )
    exclude_modules: Optional[Union[list[str], str]] = field(
        default=None,
        metadata={"help": "List of module names or regex expression of the module names to exclude from CDD."},
    )
    init_weights: bool = field(
        default=True,
        metadata={
            "help": (
                "True -> the change of each weight is zero; False -> it is random. Don't change this setting, except "
                "if you know exactly what you're doing."
            ),
        },
    )
    bias: Literal["none", "all", "cdd_only"] = field(
        default="none", metadata={"help": "Bias type for CDD. Can be 'none', 'all' or 'cdd_only'"}
    )
    modules_to_save: Optional[list[str]] = field(
        default=None,
        metadata={
            "help": "List of modules apart from CDD layers to be set as trainable and saved in the final checkpoint. "
            "For example, in Sequence Classification or Token Classification tasks, "
            "the final layer `classifier/score` are randomly initialized and as such need to be trainable and saved."
        },
    )
    layers_to_transform: Optional[Union[list[int], int]] = field(
        default=None,
        metadata={
            "help": "The layer indexes to transform, is this argument is specified, PEFT will transform only the layers indexes that are specified inside this list. If a single integer is passed, PEFT will transform only the layer at this index."
        },
    )
    layers_pattern: Optional[Union[list[str], str]] = field(
        default=None,
        metadata={
            "help": "The layer pattern name, used only if `layers_to_transform` is different to None and if the layer pattern is not in the common layers pattern."
        },
    )

    def __post_init__(self):
        super().__post_init__()
        self.peft_type = PeftType.CDD
        self.target_modules = (
            set(self.target_modules) if isinstance(self.target_modules, list) else self.target_modules
        )
        self.exclude_modules = (
            set(self.exclude_modules) if isinstance(self.exclude_modules, list) else self.exclude_modules
        )
        # if target_modules is a regex expression, then layers_to_transform should be None
        if isinstance(self.target_modules, str) and self.layers_to_transform is not None:
            raise ValueError("`layers_to_transform` cannot be used when `target_modules` is a str.")

        # if target_modules is a regex expression, then layers_pattern should be None
        if isinstance(self.target_modules, str) and self.layers_pattern is not None:
            raise ValueError("`layers_pattern` cannot be used when `target_modules` is a str.")
        # check for layers_to_transform and layers_pattern
        if self.layers_pattern and self.layers_to_transform is None:
            raise ValueError("When `layers_pattern` is specified, `layers_to_transform` must also be specified. ")

        if self.n_factors < 3 or self.n_factors % 2 == 0:
            raise ValueError(f"`n_factors` must be odd and at least 3, got {self.n_factors}")
        if self.block_size not in ("min", "toeplitz") and (isinstance(self.block_size, str) or self.block_size < 1):
            raise ValueError(f"`block_size` must be a positive integer, 'min' or 'toeplitz', got {self.block_size!r}")
        if not math.isfinite(self.alpha):
            raise ValueError(f"`alpha` must be finite, got {self.alpha}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"`dropout` must be at least 0 and less than 1, got {self.dropout}")
        if not (self.factor_scale > 0 and math.isfinite(self.factor_scale)):
            raise ValueError(f"`factor_scale` must be positive, got {self.factor_scale}")
        if self.bias not in ("none", "all", "cdd_only"):
            raise ValueError(f"`bias` must be 'none', 'all' or 'cdd_only', got {self.bias!r}")
