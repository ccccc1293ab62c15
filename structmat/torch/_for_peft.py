"""What `structmat.peft` uses of this package beside its public names; it imports no other private module of it."""

from __future__ import annotations

from structmat.torch._adapters.adapter import Init
from structmat.torch._adapters.from_lora import explaining
from structmat.torch._adapters.options import AdapterOptions
from structmat.torch._adapters.sample_changes import SampleChanges, is_computed_again
from structmat.torch._changes.dense import weight_plus_change, wide_dtype
from structmat.torch._changes.rows import Samples
from structmat.torch._files.folder import naming_damage, require_finite, require_one_product
from structmat.torch._files.low_bits import require_known_bits, unpacked_state
from structmat.torch._files.replacement import Replacement, taking_values
from structmat.torch._layers import KINDS, AdaptedLayer, Change, kind_of
from structmat.torch._layers.base_weight import dtype_and_device, own_weight, owner_of, require_whole, stored_as
from structmat.torch._layers.changed_experts import Stack, as_matrices, call_changed, laid_out, stack_of
from structmat.torch._model.model_state import as_before_on_error
from structmat.torch._model.parameter_names import (
    Place,
    parameters_meant,
    places_of,
    text_of_unreached,
    unreached_experts,
)
from structmat.torch._model.targets import adaptable_layers, is_left_out, near_names, text_of_adaptable
from structmat.torch._model.wrapping import require_alone
from structmat.torch._other_tools.calls import (
    is_never_called,
    leave_fast_paths,
    reads_weight,
    return_to_fast_paths,
    watch_calls,
)
from structmat.torch._other_tools.engines import is_tensor_parallel, unwrapped_model

__all__ = [
    "KINDS",
    "AdaptedLayer",
    "AdapterOptions",
    "Change",
    "Init",
    "Place",
    "Replacement",
    "SampleChanges",
    "Samples",
    "Stack",
    "adaptable_layers",
    "as_before_on_error",
    "as_matrices",
    "call_changed",
    "dtype_and_device",
    "explaining",
    "is_computed_again",
    "is_left_out",
    "is_never_called",
    "is_tensor_parallel",
    "kind_of",
    "laid_out",
    "leave_fast_paths",
    "naming_damage",
    "near_names",
    "own_weight",
    "owner_of",
    "parameters_meant",
    "places_of",
    "reads_weight",
    "require_alone",
    "require_finite",
    "require_known_bits",
    "require_one_product",
    "require_whole",
    "return_to_fast_paths",
    "stack_of",
    "stored_as",
    "taking_values",
    "text_of_adaptable",
    "text_of_unreached",
    "unpacked_state",
    "unreached_experts",
    "unwrapped_model",
    "watch_calls",
    "weight_plus_change",
    "wide_dtype",
]
