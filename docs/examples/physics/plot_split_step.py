"""
How does a quantum particle pass a barrier?
===========================================

Whoever computes how a wave moves in a potential, in quantum mechanics or in an optical fibre, alternates between
two simple steps. The potential changes the phase at each place, which is a diagonal matrix, and free motion changes
the phase of each frequency, which is a circulant: the *split-step* method writes the matrix exponential as a
product D C D C ... D.
"""

# %%
# One step
# --------
# The Schrödinger equation :math:`i \psi' = (K + V) \psi` has the solution :math:`\psi(t) = e^{-i t (K + V)}
# \psi(0)`, with the kinetic energy K, minus half of the second derivative, and the potential V. Each of the two
# alone has a simple exponential. Strang's splitting [#strang]_ takes half a step of V, a step of K, and half a step
# of V: :math:`e^{-i s (K + V)} \approx e^{-i s V / 2} e^{-i s K} e^{-i s V / 2}`.

import matplotlib.pyplot as plt
import numpy as np
import scipy.linalg

import structmat as sm

n, width = 512, 120.0
x = (np.arange(n) / n - 0.5) * width
frequencies = 2 * np.pi * np.fft.fftfreq(n, width / n)
barrier = 1.1 * np.exp(-((x / 1.2) ** 2)) + 1.1 * np.exp(-(((x - 6) / 1.2) ** 2))


def strang(step):
    half = sm.Diagonal(np.exp(-0.5j * step * barrier))
    return half @ sm.SpectralCirculant(np.exp(-0.5j * step * frequencies**2), n, real=False) @ half


print(strang(0.1))

# %%
# A wave packet comes from the left, with an energy a little below the two barriers. A part goes back, another
# passes both of them, and a part stays between them for a while.

packet = np.exp(-(((x + 25) / 7) ** 2) + 1.35j * x)
packet /= np.linalg.norm(packet)
time, step = 32.0, 0.05
advance = strang(step).prepare()
history = [packet]
for _ in range(round(time / step)):
    history.append(advance @ history[-1])
passed = np.sum(np.abs(history[-1][x > 10]) ** 2)
print(f"{passed:.1%} of the particle is behind the barriers; norm - 1 = {np.linalg.norm(history[-1]) - 1:.0e}")

# %%
# More factors, less error
# ------------------------
# Where two steps meet, two diagonals become one, so that s steps are a :class:`~structmat.CDDProduct` of 2 s + 1
# factors. The error falls with the square of the number of factors. Three steps of chosen lengths, of which the
# middle one goes back in time, make a step whose error falls with the fourth power [#yoshida]_. Splitting without
# the symmetry, a step of V and one of K, is of the first order. The exact matrix exponential is that of the dense
# matrix.

kinetic = sm.SpectralCirculant(0.5 * frequencies**2, n, real=False)
energies, states = scipy.linalg.eigh(kinetic.to_dense() + np.diag(barrier))
time = 4.0
exact = states @ (np.exp(-1j * time * energies) * (states.conj().T @ history[320]))


def first_order(step):
    return sm.Diagonal(np.exp(-1j * step * barrier)) @ (-1j * step * kinetic).expm()


def fourth_order(step):
    outer = 1 / (2 - 2 ** (1 / 3))
    return strang(outer * step) @ strang((1 - 2 * outer) * step) @ strang(outer * step)


figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.6), layout="constrained", width_ratios=(1.25, 1))
density = np.abs(np.array(history[::4])) ** 2
extent = (x[0], x[-1], 0, 32)
left.imshow(density**0.5, origin="lower", aspect="auto", extent=extent, cmap="inferno")
left.plot(x, 4 * barrier, color="white", linewidth=1.5)
left.set(xlabel="place", ylabel="time", xlim=(-50, 50), title="amplitude of the wave, and the barriers")
for name, make, colour, marker in (
    ("V, then K", first_order, "#E69F00", "s"),
    ("Strang", strang, "#0072B2", "o"),
    ("fourth order", fourth_order, "#D55E00", "^"),
):
    factors, errors = [], []
    for steps in 2 ** np.arange(2, 9):
        product, state = make(time / steps), history[320]
        for _ in range(steps):
            state = product @ state
        factors.append(steps * (product.n_factors - product.n_factors % 2) + product.n_factors % 2)
        errors.append(np.linalg.norm(state - exact))
    right.loglog(factors, errors, marker=marker, color=colour, linewidth=2, label=name)
right.set(xlabel="number of factors", ylabel="error of the wave", ylim=(1e-9, 3))
right.grid(color="0.9")
right.legend(frameon=False)
plt.show()

# %%
# These are products whose factors have a formula. :func:`structmat.fit_cdd` looks for such products of any matrix,
# and :doc:`/exact_products` tells how many factors an exact one takes. References:
#
# .. [#strang] Strang, G., On the construction and comparison of difference schemes, SIAM Journal on Numerical
#    Analysis 5, 1968.
# .. [#yoshida] Yoshida, H., Construction of higher order symplectic integrators, Physics Letters A 150, 1990.
