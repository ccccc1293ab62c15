"""
How many phase masks make a unitary matrix? Interferometers by circulants and diagonals
=======================================================================================

An interferometer of N ports multiplies the amplitudes of light by a unitary matrix. It can be built of phase masks,
which delay the light of each port, with a fixed layer between them that mixes all ports, such as a Fourier transform.
Masks and transforms in turn are a product of diagonals and circulants whose entries and eigenvalues have modulus one.
:func:`~structmat.fit_phase_masks` finds the phases.
"""

# %%
# A random interferometer
# -----------------------
# N + 2 masks are enough for 16 ports, and the first random start ends at the matrix. Steps of second order, on all
# phases at once, double the number of right digits each time near the end.

import matplotlib.pyplot as plt
import numpy as np
import scipy.linalg
from scipy.stats import unitary_group

import structmat as sm

U = unitary_group.rvs(16, random_state=0)
fit = sm.fit_phase_masks(U, rng=0)
print(fit)
print(f"largest difference of an entry: {np.abs(fit.operator.to_dense() - U).max():.0e}")

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
fit.plot_phases(left)
fit.plot(right)
plt.show()

# %%
# How many masks are needed
# -------------------------
# A unitary matrix has N\ :sup:`2` real numbers. L masks have L N phases; a constant on one mask does the same as on
# any other, so that L - 1 of them are no use. Counting therefore asks for L (N - 1) + 1 :math:`\ge` N\ :sup:`2`, that
# is for N + 1 masks. With so many about every second start succeeds, with one more nearly all do.

n, starts = 8, 10
masks = np.arange(n - 1, n + 5)
shares = []
for count in masks:
    errors = [
        sm.fit_phase_masks(unitary_group.rvs(n, random_state=seed), count, rng=seed, restarts=1).error
        for seed in range(starts)
    ]
    shares.append(np.mean(np.array(errors) < 1e-10))

figure, ax = plt.subplots(figsize=(6.4, 4), layout="constrained")
ax.bar(masks, shares, color="#0072B2")
ax.axvline(n + 0.5, color="0.3", linestyle="--", label="bound by counting")
ax.set(xlabel=f"masks, for {n} ports", ylabel="share of starts that end at the matrix", ylim=(0, 1.05))
ax.legend(frameon=False, loc="upper left")
plt.show()

# %%
# Matrices with structure, and a mode converter
# ---------------------------------------------
# A Hadamard and a Fourier matrix are reproduced too. A device for a few modes only has to be right for these: two of
# twelve ports are brought to two others by six masks.

for name, matrix in (("Hadamard", scipy.linalg.hadamard(16) / 4), ("Fourier", scipy.linalg.dft(16, scale="sqrtn"))):
    print(f"{name:>8}: error {sm.fit_phase_masks(matrix, 19, rng=0).error:.0e}")

converter = sm.fit_phase_masks(np.eye(2), 6, inputs=[0, 1], outputs=[7, 9], n_ports=12, rng=0)
print(f"converter: error {converter.error:.0e}, with {converter.phases.shape[0]} masks")

# %%
# A device that is off
# --------------------
# The layers of a device differ from the design. If they are measured, the fit goes on from the phases of the design.

rng = np.random.default_rng(0)
errors = [rng.standard_normal((16, 16)) + 1j * rng.standard_normal((16, 16)) for _ in range(17)]
design = sm.fit_phase_masks(U, mixing=sm.Fourier(16), rng=0)
layers = [sm.Fourier(16).to_dense() @ scipy.linalg.expm(0.005 * (E - E.conj().T)) for E in errors]
off = sm.fit.phase_mask_product(design.phases, layers).to_dense()
calibrated = sm.fit_phase_masks(U, mixing=layers, phases=design.phases)
print(f"as designed: error {np.linalg.norm(off - U) / 4:.2f}; calibrated: {calibrated.error:.0e}")
