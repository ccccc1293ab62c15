"""What torch is at when an operation is called: compilers, exporters, tracers, transforms of `torch.func`, autocast.

A usual forward pass calls nothing of other people's tools but `sees_operations`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad

__all__ = ["autocast_dtype", "for_compilers", "has_transforms", "is_recorded", "sees_operations"]


def sees_operations() -> bool:
    """Return whether a tool is at work that cannot take a `torch.autograd.Function`.

    Such tools are compilers, exporters, tracers, `make_fx`, the transforms of torch.func, and derivatives in forward
    mode. They are given plain operations, or one operation that is registered with torch.
    """
    # `is_recorded` and two more, written out: every forward pass asks this.
    return (
        torch.compiler.is_compiling()
        or torch._C._is_tracing()
        or torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.PROXY) is not None
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )


def is_recorded() -> bool:
    """Return whether an exporter or tracer records operations, or a compiler does."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.PROXY) is not None
    )


def for_compilers() -> bool:
    """Return whether the tool at work is a compiler, which may be given an operation of this package.

    The programs of exporters run where this package is not installed: they are given plain operations.
    """
    # Older versions of torch cannot tell the two apart; there compilers are given plain operations too.
    exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
    transformed = torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    return torch.compiler.is_compiling() and not exporting() and not transformed


def has_transforms(vectors: Sequence[Tensor]) -> bool:
    """Return whether Fourier transforms compute circulants well; they do everywhere but in some files of ONNX.

    The older exporter to ONNX knows no transforms. Those of ONNX Runtime lose digits where a length is no power of two:
    for a length of 384 errors in float32 are 3e-5 instead of 3e-7.
    """
    if not torch.onnx.is_in_onnx_export():
        return True
    return not torch.jit.is_tracing() and all(v.shape[2].bit_count() == 1 for v in vectors[1::2])


def autocast_dtype(given: Tensor) -> torch.dtype | None:
    """Return the dtype in which torch takes a factor of a product under autocast; None if autocast is off."""
    device = given.device.type
    if given.is_meta or not torch.is_autocast_enabled(device):  # "meta" has none
        return None
    casts = given.is_floating_point() and given.dtype != torch.float64
    return torch.get_autocast_dtype(device) if casts else given.dtype
