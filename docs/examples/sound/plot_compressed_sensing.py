"""
How few measurements determine a sparse signal?
===============================================

A signal of 1,024 entries, of which only 30 are not zero, is determined by far fewer than 1,024 measurements, if
each of them mixes all entries. A circulant with random phases mixes as well as a full random matrix does, takes two
transforms a product, and can be built: as a random convolution in radar, in a coded camera, or in a scanner.
"""

# %%
# Random convolution
# ------------------
# The eigenvalues of the circulant have the absolute value one and random phases, so it is an orthogonal
# matrix [#romberg]_. Some of its rows, chosen at random, are the measurements: ``C[kept]`` is that matrix, as an
# operator.

import time

import matplotlib.pyplot as plt
import numpy as np

import structmat as sm

n, nonzeros, measurements = 1024, 30, 180
rng = np.random.default_rng(1)


def random_convolution(kept):
    phases = np.exp(2j * np.pi * rng.random(n // 2 + 1))
    phases[[0, -1]] = rng.choice((-1.0, 1.0), 2)
    return sm.SpectralCirculant(phases, n)[np.sort(rng.permutation(n)[:kept])]


def sparse_signals(count, nonzeros):
    signals = np.zeros((count, n))
    for signal in signals:
        signal[rng.permutation(n)[:nonzeros]] = rng.standard_normal(nonzeros)
    return signals


A = random_convolution(measurements)
signal = sparse_signals(1, nonzeros)[0]
data = A @ signal
print(A)

# %%
# The sparsest explanation
# ------------------------
# Many signals give the same measurements. The one of least norm is ``A.H @ data``, as the rows of A are
# orthonormal, and looks like noise. The one with the least sum of absolute values is nearly always the true
# one [#candes]_. It is found by the accelerated proximal gradient method (FISTA [#fista]_), with one product by A
# and one by its adjoint in each step; the weight of the sum falls on the way.


def least_sum(A, data, steps=300):
    """Signals that explain the data, in rows, with a small sum of absolute values."""
    weight = 0.5 * np.abs(A.rmatvec(data)).max()
    found, ahead, momentum = 0.0, np.zeros((*data.shape[:-1], n)), 1.0
    for _ in range(steps):
        step = ahead - A.rmatvec(A.matvec(ahead) - data)
        new = np.sign(step) * np.maximum(np.abs(step) - weight, 0)
        later = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = new + (momentum - 1) / later * (new - found)
        found, momentum, weight = new, later, max(0.95 * weight, 1e-4)
    return found


begun = time.process_time()
found = least_sum(A, data)
seconds = time.process_time() - begun
least_norm = A.H @ data
for name, guess in (("least norm", least_norm), ("least sum of absolute values", found)):
    print(f"{name:>30}: relative error {np.linalg.norm(guess - signal) / np.linalg.norm(signal):.4f}")
print(f"300 steps in {seconds:.2f} s")

# %%
# How many are enough?
# --------------------
# For each number of measurements ten signals are tried at once, as a batch, with the circulant and with a random
# matrix with orthonormal rows. Both need about the same number, five for each entry that is not zero. At this size
# the dense matrix is about as fast, too; for an image of a million pixels it would take terabytes.

numbers = (100, 120, 140, 160, 180, 200)
rates = {"random convolution": [], "dense random matrix": []}
for number in numbers:
    dense = sm.Dense(np.linalg.qr(rng.standard_normal((n, number)))[0].T)
    signals = sparse_signals(10, nonzeros)
    for name, matrix in zip(rates, (random_convolution(number), dense), strict=True):
        guesses = least_sum(matrix, matrix.matvec(signals), steps=200)
        errors = np.linalg.norm(guesses - signals, axis=1) / np.linalg.norm(signals, axis=1)
        rates[name].append(np.mean(errors < 0.01))

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained", width_ratios=(1.5, 1))
left.plot(least_norm, color="#E69F00", linewidth=0.8, label="least norm")
left.plot(np.flatnonzero(signal), signal[signal != 0], "o", color="black", markerfacecolor="none", label="signal")
left.vlines(np.arange(n), 0, found, color="#0072B2", linewidth=2, label="least sum")
left.set(xlabel="entry", ylabel="value", xlim=(0, n), title=f"{measurements} measurements of {n:,} entries")
left.legend(frameon=False, ncols=3, loc="lower center")
left.set_ylim(1.5 * left.get_ylim()[0], None)
right.plot(numbers, rates["random convolution"], "o-", color="#0072B2", linewidth=4, label="random convolution")
right.plot(numbers, rates["dense random matrix"], "s--", color="#D55E00", linewidth=2, label="dense random matrix")
right.set(xlabel="measurements", ylabel="share of signals found", ylim=(-0.05, 1.25))
right.legend(frameon=False)
right.grid(color="0.9")
plt.show()

# %%
# A signal that is sparse in cosines or in other functions is found in the same way, with the product of A and that
# transform, such as ``A @ structmat.CosineTransform(n).T``. References:
#
# .. [#romberg] Romberg, J., Compressive sensing by random convolution, SIAM Journal on Imaging Sciences 2, 2009.
# .. [#candes] Candès, E. J., Romberg, J., Tao, T., Robust uncertainty principles: exact signal reconstruction from
#    highly incomplete frequency information, IEEE Transactions on Information Theory 52, 2006.
# .. [#fista] Beck, A., Teboulle, M., A fast iterative shrinkage-thresholding algorithm for linear inverse problems,
#    SIAM Journal on Imaging Sciences 2, 2009.
