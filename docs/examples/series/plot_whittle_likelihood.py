"""
Is Whittle's likelihood good enough?
====================================

The usual shortcut for the likelihood of a long series compares its periodogram with the spectrum of the model, as
if frequencies were independent. For smooth processes that can be wrong by more than a factor of two, and the exact
likelihood needs no shortcut: the determinant and the solution of a Toeplitz matrix take milliseconds.
"""

# %%
# A smooth process
# ----------------
# Twenty-five series of 512 values of a process with a Matérn covariance of order 5/2 and the length 12. Its power
# falls with the sixth power of the frequency. The ends of a series do not meet, and what leaks from low frequencies
# hides this fall in the periodogram.

import time

import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import minimize_scalar

import structmat as sm
from structmat.sampling import sample_stationary


def covariance(lags, length):
    scaled = 5**0.5 * lags / length
    return (1 + scaled + scaled**2 / 3) * np.exp(-scaled)


n, length = 512, 12.0
series = sample_stationary(lambda lags: covariance(lags, length), n, n_samples=25, rng=0)

# %%
# Three likelihoods
# -----------------
# All are functions of the length alone, at the best variance. A taper lets the series begin and end at zero, and so
# lessens the leakage, but leaves fewer data.


def exact(x):
    def negative(length):
        T = sm.Toeplitz(covariance(np.arange(n), length))
        return (n * np.log(x @ T.solve(x)) + T.slogdet().logabsdet) / 2

    return negative


def spectrum(length):
    """That of the model at the frequencies between zero and the highest one."""
    lags = np.minimum(np.arange(8 * n), 8 * n - np.arange(8 * n))
    return np.fft.rfft(covariance(lags, length)).real[::8][1 : n // 2]


def periodogram(x, taper):
    return np.abs(np.fft.rfft(x * taper))[1 : n // 2] ** 2 / np.sum(taper**2)


def whittle(x, taper):
    power = periodogram(x, taper)

    def negative(length):
        model = spectrum(length)
        return power.size * np.log(np.mean(power / model)) + np.sum(np.log(model))

    return negative


def best(negative):
    search = {"bounds": (1.0, 4.5), "method": "bounded", "options": {"xatol": 0.005}}
    return np.exp(minimize_scalar(lambda log: negative(np.exp(log)), **search).x)


methods = {
    "exact": exact,
    "Whittle": lambda x: whittle(x, np.ones(n)),
    "Whittle, tapered": lambda x: whittle(x, np.hanning(n)),
}
estimates = {}
for name, method in methods.items():
    begun = time.process_time()
    estimates[name] = np.array([best(method(x)) for x in series])
    spent = 1e3 * (time.process_time() - begun) / len(series)
    print(
        f"{name:>16}: length {estimates[name].mean():5.2f} +- {estimates[name].std():.2f}, {spent:.1f} ms for a series"
    )

# %%
# The true length is 12. Whittle's shortcut is faster and wrong; with a taper it is right in the mean, but scatters
# nearly twice as much as the exact likelihood.

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained", width_ratios=(1.2, 1))
frequencies = np.arange(1, n // 2) / n
for taper, colour, name in (
    (np.ones(n), "#E69F00", "mean periodogram"),
    (np.hanning(n), "#009E73", "mean periodogram, tapered"),
):
    left.loglog(frequencies, np.mean([periodogram(x, taper) for x in series], axis=0), color=colour, label=name)
left.loglog(frequencies, spectrum(length), color="black", linewidth=2, linestyle="--", label="spectrum of the model")
left.set(xlabel="frequency", ylabel="power")
left.legend(frameon=False)
for place, (name, colour) in enumerate(zip(estimates, ("#0072B2", "#E69F00", "#009E73"), strict=True)):
    right.plot(estimates[name], np.full(len(series), place), "o", color=colour, alpha=0.6, markersize=8)
right.axvline(length, color="black", linestyle="--")
right.set_yticks(range(3), ["exact", "Whittle", "Whittle,\ntapered"])
right.set(xlabel="estimated length", ylim=(-0.5, 2.5))
right.grid(color="0.9", axis="x")
plt.show()

# %%
# The exact likelihood also takes gaps and uneven noise, where a periodogram does not exist:
# :doc:`plot_grids_with_gaps`. References:
#
# Whittle, P., Estimation and information in stationary time series, Arkiv för Matematik 2, 1953.
#
# Sykulski, A. M., Olhede, S. C., Guillaumin, A. P., Lilly, J. M., Early, J. J., The debiased Whittle likelihood,
# Biometrika 106, 2019.
