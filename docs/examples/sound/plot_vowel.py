"""
Which vowel is it? The resonances of a voice
============================================

A vowel is a buzz that resonates in the mouth, and telephones describe it by a few coefficients of *linear
prediction*: how each sample follows from those before. They solve a small Toeplitz system for each piece of sound,
and the systems of a hundred pieces are solved in one call.
"""

# %%
# A hundred voices
# ----------------
# Pulses of the vocal cords pass through four resonances of the mouth, the *formants*. The lowest two tell which
# vowel it is [#peterson]_. Each voice has a pitch of its own, and formants that differ by some per cent.

import time

import matplotlib.pyplot as plt
import numpy as np
import scipy.linalg
import scipy.signal

import structmat as sm

rate, samples, order = 8000, 400, 10
formants = {
    "i": (270, 2290, 3010, 3600),
    "e": (530, 1840, 2480, 3500),
    "a": (730, 1090, 2440, 3400),
    "o": (570, 840, 2410, 3400),
    "u": (300, 870, 2240, 3400),
}
rng = np.random.default_rng(0)


def sing(frequencies, pitch):
    """Fifty milliseconds of a vowel."""
    pulses = 1e-3 * rng.standard_normal(samples)
    pulses[:: round(rate / pitch)] += 1
    poles = np.exp(np.pi / rate * (-np.array([60, 90, 120, 150]) + 2j * np.array(frequencies)))
    cords = np.poly([0.95, 0.9])  # they prefer low frequencies
    return scipy.signal.lfilter([1.0, -0.98], np.convolve(cords, np.poly([*poles, *poles.conj()]).real), pulses)


names = np.repeat(list(formants), 20)
sounds = np.array([sing(np.array(formants[name]) * rng.normal(1, 0.05, 4), rng.uniform(90, 160)) for name in names])

# %%
# Linear prediction
# -----------------
# The best coefficients for predicting a sample by the ten before it solve the equations of Yule and Walker, whose
# matrix has the autocovariances on its diagonals. A stack of such matrices is one :class:`~structmat.Toeplitz` with
# a leading axis.

windowed = np.diff(sounds, prepend=0) * np.hanning(samples)  # differences lift the high frequencies
power = np.abs(np.fft.rfft(windowed, 2 * samples)) ** 2
lags = np.fft.irfft(power)[:, : order + 1]

T = sm.Toeplitz(lags[:, :order])
print(T)
begun = time.process_time()
coefficients = T.inv_matvec(lags[:, 1:])  # right-hand sides along the last axis
seconds = time.process_time() - begun
begun = time.process_time()
each = np.array([scipy.linalg.solve_toeplitz(row[:order], row[1:]) for row in lags])
others = time.process_time() - begun
print(f"all at once {1e3 * seconds:.1f} ms, scipy.linalg.solve_toeplitz one by one {1e3 * others:.1f} ms")
print(f"largest difference {np.abs(each - coefficients).max():.0e}")

# %%
# Formants
# --------
# The predictor is a filter, and one over its transform is the envelope of the spectrum of the voice. Its peaks are
# the formants: the angles of the roots of the polynomial of the coefficients.


def two_formants(row):
    roots = np.roots(np.append(1, -row))
    return np.sort(np.angle(roots[(roots.imag > 0) & (np.abs(roots) > 0.9)]))[:2] * rate / 2 / np.pi


found = np.array(list(map(two_formants, coefficients)))
centres = np.array([frequencies[:2] for frequencies in formants.values()])
nearest = np.argmin(np.linalg.norm(np.log(found[:, None] / centres), axis=-1), axis=1)
print(f"recognised: {np.mean(np.array(list(formants))[nearest] == names):.0%}")

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.6), layout="constrained")
frequencies = np.linspace(0, rate / 2, samples + 1)
for shown, colour in ((45, "#D55E00"), (5, "#0072B2")):
    _, response = scipy.signal.freqz([1.0], np.append(1, -coefficients[shown]), 2 * np.pi * frequencies / rate)
    left_over = lags[shown, 0] - coefficients[shown] @ lags[shown, 1:]
    shift = 0 if shown == 45 else -70
    left.plot(frequencies / 1e3, 10 * np.log10(power[shown] + 1e-9) + shift, color="0.7", linewidth=0.8)
    envelope = 10 * np.log10(left_over * np.abs(response) ** 2) + shift
    left.plot(frequencies / 1e3, envelope, color=colour, linewidth=2, label=f"envelope of {names[shown]}")
left.set(xlabel="kilohertz", ylabel="power in dB, one curve shifted", xlim=(0, rate / 2e3))
left.legend(frameon=False)
for name, colour in zip(formants, ("#0072B2", "#009E73", "#D55E00", "#E69F00", "#CC79A7"), strict=True):
    right.plot(*found[names == name].T, "o", color=colour, label=name, alpha=0.7)
right.set(xlabel="first formant in hertz", ylabel="second formant in hertz")
right.legend(frameon=False, ncols=5, loc="upper center", columnspacing=0.8, handletextpad=0.1)
right.set_ylim(600, 3000)
plt.show()

# %%
# Reference:
#
# .. [#peterson] Peterson, G. E., Barney, H. L., Control methods used in a study of the vowels, Journal of the
#    Acoustical Society of America 24, 1952.
