"""
Can a few phase masks sort light? A product D C D C D in nature
===============================================================

Whoever sends several signals through one optical fibre, each in a shape (*mode*) of its own, has to take the shapes
apart at the other end. A few phase masks with free space between them do it: each mask multiplies the field of the
light by a diagonal matrix, and each stretch of free space by a circulant one, so that the device is a product D C D
... C D, whose diagonals are found here by gradient descent.
"""

# %%
# Masks and free space
# --------------------
# The field is a complex number at each point of a grid, here of 128 x 128 points. A mask delays the light, which
# changes the phase of the field at each point. Free space changes the phase of each plane wave, by an amount that
# depends on its direction (the *angular spectrum*): with the Fourier transform F it is the matrix :math:`F^H H F`
# with a diagonal H, and so a circulant of two levels. :class:`~structmat.SpectralMultiplier` is made of the
# diagonal of H. All lengths are in micrometres.

import time
from functools import reduce

import matplotlib.pyplot as plt
import numpy as np
import torch

import structmat as sm

n, pitch, wavelength, gap, planes = 128, 8.0, 1.55, 20_000.0, 7
frequencies = torch.fft.fftfreq(n, pitch, dtype=torch.float64)
# how many waves there are in a micrometre along the axis, for each direction
waves = torch.sqrt(wavelength**-2 - frequencies[:, None] ** 2 - frequencies**2)
phases = torch.exp(2j * np.pi * gap * (waves - 1 / wavelength)).ravel().to(torch.complex64)
free_space = sm.SpectralMultiplier(phases, (n, n), "dft", real=False)


def device(masks):
    """The matrix that maps the light before the first mask to that behind the last one."""
    diagonals = [sm.Diagonal(torch.exp(1j * mask)) for mask in masks]
    return reduce(lambda before, mask: mask @ free_space @ before, diagonals)


# %%
# Modes in, spots out
# -------------------
# The ten lowest modes of a fibre with a parabolic profile, Hermite-Gauss functions, shall become ten spots in a
# triangle.

place = (np.arange(n) - (n - 1) / 2) * pitch


def hermite_gauss(orders, width, centre=(0.0, 0.0)):
    """A mode as a unit vector."""
    y, x = (
        np.polynomial.hermite.hermval(2**0.5 * (place - middle) / width, [0] * order + [1])
        * np.exp(-(((place - middle) / width) ** 2))
        for order, middle in zip(orders, centre, strict=True)
    )
    mode = np.outer(y, x).ravel()
    return torch.tensor(mode / np.linalg.norm(mode), dtype=torch.complex64)


orders = [(total - x, x) for total in range(4) for x in range(total + 1)]
modes = torch.stack([hermite_gauss(order, 110.0) for order in orders])
centres = [(150.0 * (y + x - 2), 90.0 * (x - y)) for y, x in orders]
spots = torch.stack([hermite_gauss((0, 0), 55.0, centre) for centre in centres])

# %%
# Design by gradients
# -------------------
# The share of the light of mode k that reaches spot j is the squared absolute value of an entry of the small matrix
# below. The masks start at zero, and Adam raises the mean of its diagonal. Gradients flow through the operators.


def shares(masks):
    return (spots.conj() @ device(masks).matvec(modes).T).abs() ** 2


masks = torch.zeros((planes, n * n), requires_grad=True)
optimizer = torch.optim.Adam([masks], lr=0.2)
by_gradient, begun = [], time.process_time()
for _ in range(80):
    optimizer.zero_grad()
    reached = shares(masks).diagonal().mean()
    (-reached).backward()
    optimizer.step()
    by_gradient.append((time.process_time() - begun, reached.item()))
masks = masks.detach()
print(f"{2 * planes - 1} factors, shape {device(masks).shape}")

# %%
# Design by wavefront matching
# ----------------------------
# The usual method for such devices [#fontaine]_ sends the modes forward and the spots backward, and gives one mask
# after another the phase by which the two fields match best. It needs no gradient, and the backward light is the
# product with the adjoint, which :attr:`~structmat.LinearOperator.H` is.

matched = torch.zeros((planes, n * n))
by_matching, begun = [], time.process_time()
for _ in range(25):
    backward = [spots]
    for mask in matched.flip(0)[:-1]:
        backward.append(free_space.H.matvec(backward[-1] * torch.exp(-1j * mask)))
    field = modes
    for k, wanted in enumerate(reversed(backward)):
        overlaps = field * wanted.conj()
        totals = (overlaps * torch.exp(1j * matched[k])).sum(-1, keepdim=True)
        matched[k] = -torch.angle((overlaps * (totals / totals.abs()).conj()).sum(0))
        field = field * torch.exp(1j * matched[k])
        field = free_space.matvec(field) if k < planes - 1 else field
    by_matching.append((time.process_time() - begun, shares(matched).diagonal().mean().item()))

for name, found in (("gradients", masks), ("wavefront matching", matched)):
    table = shares(found)
    wrong = 10 * np.log10((table.sum() / table.trace() - 1).item())
    print(f"{name:>18}: {table.diagonal().mean():.1%} of the light arrives, crosstalk {wrong:.0f} dB")

# %%
# Three of the modes on their way
# -------------------------------
# A column shows a mask, and below it the light that reaches this mask. The spots appear where the light reaches the
# last mask, which makes their phases even.

figure, axes = plt.subplots(4, planes, figsize=(9, 5.6), layout="constrained")
middle = (slice(16, 112),) * 2
for k, mask in enumerate(masks):
    axes[0, k].imshow((mask % (2 * np.pi)).reshape(n, n)[middle], cmap="twilight")
    axes[0, k].set_title(f"mask {k + 1}")
for row, number in zip(axes[1:], (1, 5, 10), strict=True):
    field = modes[number - 1]
    for ax, mask in zip(row, masks, strict=True):
        ax.imshow(field.abs().reshape(n, n)[middle], cmap="inferno")
        field = free_space.matvec(field * torch.exp(1j * mask))
    row[0].set_ylabel(f"mode {number}")
for ax in axes.flat:
    ax.set(xticks=[], yticks=[])
plt.show()

# %%
# The two designs
# ---------------
# Wavefront matching is the better of the two at first. Gradients go on to a little more light, and with them the
# goal may be any function of the matrix, such as crosstalk, or the mean over several wavelengths.

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained", width_ratios=(1.3, 1))
left.plot(*np.transpose(by_gradient), color="#0072B2", linewidth=2, label="gradients")
left.plot(*np.transpose(by_matching), color="#D55E00", linewidth=2, linestyle="--", label="wavefront matching")
left.set(xlabel="seconds of the processor", ylabel="share of light that arrives", ylim=(0, 1))
left.grid(color="0.9")
left.legend(frameon=False, loc="lower right")
numbers = (0.5, len(modes) + 0.5, len(modes) + 0.5, 0.5)
image = right.imshow(10 * torch.log10(shares(masks)), cmap="viridis", vmin=-50, vmax=0, extent=numbers)
right.set(xlabel="mode", ylabel="spot", title="masks by gradients", xticks=(1, 5, 10), yticks=(1, 5, 10))
figure.colorbar(image, ax=right, label="share of light in dB")
plt.show()

# %%
# With enough factors every matrix is such a product (:doc:`/exact_products`), but a matrix of 16,384 rows takes
# about twice as many factors. A device for ten modes has to be right for ten vectors alone, for which seven masks
# go a long way. The rest of the light is scattered beside the spots. Reference:
#
# .. [#fontaine] Fontaine, N. K., Ryf, R., Chen, H., Neilson, D. T., Kim, K., Carpenter, J., Laguerre-Gaussian mode
#    sorter, Nature Communications 10, 1865, 2019.
