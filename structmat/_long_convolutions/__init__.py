"""Long convolutions as PyTorch defines them, by Fourier transforms where these are faster.

- `layers`: `FFTConv1d` and its relatives, and `replace_convolutions`
- `operation`: the differentiable operation of these, `fft_conv`
- `plan`: whether and in which tiles a convolution is transformed, by what measured faster
- `transforms`: convolutions of several channels by Fourier transforms; pure functions
"""

from structmat._long_convolutions.layers import FFTConv1d, FFTConv2d, FFTConv3d, replace_convolutions
from structmat._long_convolutions.operation import fft_conv

__all__ = ["FFTConv1d", "FFTConv2d", "FFTConv3d", "fft_conv", "replace_convolutions"]
