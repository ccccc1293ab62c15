"""
Can a voice be separated from a fan?
====================================

Four microphones hear a voice, a fan and noise, and a filter shall leave the voice. The linear filter of the last
samples of all microphones with the least mean squared error solves a system with the covariances of the channels at all
pairs of delays, which is block Toeplitz. It takes out most of the fan if both were heard apart for a while, so that the
covariances are known.
"""

# %%
# Voice and fan
# -------------
# Each comes to each microphone by a path of its own, with echoes. The first microphone's part of the voice is wanted.

import matplotlib.pyplot as plt
import numpy as np
import scipy.signal

import structmat as sm

rng = np.random.default_rng(1)
microphones, samples, rate, taps = 4, 64_000, 16_000, 256


def paths():
    """Impulse responses of a room, shape (microphones, 400)."""
    decay = np.exp(-np.arange(400) / 60)
    echoes = rng.standard_normal((microphones, 400)) * decay * 0.3
    echoes[np.arange(microphones), rng.integers(5, 30, microphones)] += 1
    return echoes


def heard(signal):
    return scipy.signal.fftconvolve(signal[None], paths(), axes=1)[:, :samples]


envelope = np.clip(np.sin(2 * np.pi * 1.7 * np.arange(samples) / rate), 0, None)
poles = np.poly([0.97 * np.exp(0.15j), 0.97 * np.exp(-0.15j), 0.9]).real
voice = heard(envelope * scipy.signal.lfilter([1.0], poles, rng.standard_normal(samples)))
hum = scipy.signal.lfilter([1.0], [1.0, -0.95], rng.standard_normal(samples))
fan = heard(hum)
voice /= voice[0].std()
fan /= fan[0].std()
noise = 0.02 * rng.standard_normal((microphones, samples))
mixture = voice + fan + noise

# %%
# The filter
# ----------
# The system is made of the covariances of the mixture, and of the mixture with the wanted signal, at the delays 0 to
# 255. It has 1,024 unknowns.


def covariances(left, right):
    """Covariances of all pairs of channels at the delays 0 to taps - 1, shape (taps, left, right)."""
    spectra = [np.fft.rfft(channels, 2 * samples) for channels in (left, right)]
    return np.fft.irfft(spectra[0][:, None].conj() * spectra[1])[..., :taps].transpose(2, 0, 1) / samples


T = sm.BlockToeplitz(covariances(mixture, mixture))
filters = T.solve(covariances(mixture, voice[:1]).ravel()).reshape(taps, microphones)
cleaned = scipy.signal.fftconvolve(mixture, filters.T, axes=1)[:, :samples].sum(axis=0)
print(T)


def distance(signal):
    """The energy of the voice over that of the error, in dB."""
    return 10 * np.log10(np.sum(voice[0] ** 2) / np.sum((signal - voice[0]) ** 2))


one = sm.Toeplitz(T.c[:, 0, 0]).solve(covariances(mixture[:1], voice[:1]).ravel())
by_one = scipy.signal.lfilter(one, [1.0], mixture[0])
print("energy of the voice over that of the error:")
for name, signal in (("one microphone", mixture[0]), ("its filter", by_one), ("the filter of four", cleaned)):
    print(f"{name:>20}: {distance(signal):5.1f} dB")

# %%
# What is heard
# -------------

time = np.arange(samples) / rate
figure, axes = plt.subplots(3, 1, figsize=(9, 6.5), sharex=True, sharey=True, layout="constrained")
parts = ("first microphone", mixture[0]), ("Wiener filter of four", cleaned), ("the voice alone", voice[0])
for ax, (name, signal) in zip(axes, parts, strict=True):
    ax.plot(time, signal, linewidth=0.4, color="#0072B2")
    ax.set_title(name, loc="left")
axes[-1].set(xlabel="seconds", xlim=(0, time[-1]))
plt.show()
