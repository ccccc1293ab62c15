"""
What is an option worth if its price can jump?
==============================================

Whoever prices options by a differential equation solves a system with three diagonals in each step of time. If the
price of the share can also jump, every value depends on every other, and the matrix is full; but on a grid of
logarithms of the price it is Toeplitz, so that a step still takes a few transforms.
"""

# %%
# Merton's model
# --------------
# The logarithm of the price moves as a Brownian motion, and jumps at random times, a few times a year, by a
# normally distributed amount [#merton]_. The value u of an option at the time t before its end solves :math:`u' = A
# u` with :math:`A u = \sigma^2 u'' / 2 + \mu u' - (r + \lambda) u + \lambda \int u(x + y) \, p(y) \, dy`, where p
# is the density of a jump. Differences and integrals with the same weights everywhere make A a Toeplitz matrix.

import time
from math import factorial

import matplotlib.pyplot as plt
import numpy as np
import scipy.linalg
from scipy.optimize import brentq
from scipy.stats import norm

import structmat as sm

rate, volatility, jumps, mean, spread = 0.03, 0.15, 1.5, -0.15, 0.12  # jumps a year, their mean and their deviation
surplus = np.exp(mean + spread**2 / 2) - 1  # the mean relative change of the price by a jump
drift = rate - volatility**2 / 2 - jumps * surplus


def generator(n, step):
    """The matrix A on n points of the logarithm of the price."""
    k = np.arange(n)
    down, up = jumps * step * norm.pdf(-k * step, mean, spread), jumps * step * norm.pdf(k * step, mean, spread)
    for row, sign in ((down, -1), (up, 1)):
        row[0] -= volatility**2 / step**2 + rate + jumps
        row[1] += volatility**2 / 2 / step**2 + sign * drift / 2 / step
    return sm.Toeplitz(down, up)


# %%
# Steps of time
# -------------
# The rule of Crank and Nicolson solves ``(I - s A / 2) u_new = (I + s A / 2) u_old`` in each step of length s,
# after four shorter steps without the second half, as the value at the end has a kink [#rannacher]_. All steps have
# the same matrix: ``prepare`` keeps its inverse, which is given by two vectors. The grid goes so far that its ends
# do not matter.


def put(n, steps, years=1.0, width=6.0):
    """Log prices, and values of the right to sell for 1."""
    x = np.linspace(-width / 2, width / 2, n)
    half = years / steps / 2 * generator(n, x[1] - x[0])
    u = np.maximum(1 - np.exp(x), 0)
    start = (sm.Identity(n) - half / 2).inv()
    for _ in range(4):
        u = start @ u
    implicit, explicit = (sm.Identity(n) - half).inv().prepare(), (sm.Identity(n) + half).prepare()
    for _ in range(steps - 1):
        u = implicit @ (explicit @ u)
    return x, u


def merton(x, years=1.0):
    """The exact value: a mean over the number of jumps of values without jumps."""
    total = 0.0
    for k in range(40):
        deviation = np.sqrt(volatility**2 * years + k * spread**2)
        middle = x + drift * years + k * mean
        below = norm.cdf(-middle / deviation) - np.exp(middle + deviation**2 / 2) * norm.cdf(
            -middle / deviation - deviation
        )
        total += np.exp(-(jumps + rate) * years) * (jumps * years) ** k / factorial(k) * below
    return total


x, value = put(1025, 100)
near = abs(x) < 0.4
print(f"largest error between 67 and 149 % of the strike: {np.abs(value - merton(x))[near].max():.0e}")

# %%
# What it takes
# -------------
# With twice the points and twice the steps the error is a quarter. The same steps with a dense LU factor give the
# same values, but each of them takes as many operations as the matrix has entries.


def dense_seconds(n, steps):
    matrix = generator(n, 6 / (n - 1)).to_dense() / steps / 2
    begun = time.process_time()
    factor, explicit, u = scipy.linalg.lu_factor(np.eye(n) - matrix), np.eye(n) + matrix, np.ones(n)
    for _ in range(steps):
        u = scipy.linalg.lu_solve(factor, explicit @ u)
    return time.process_time() - begun


for n in (257, 513, 1025):
    begun = time.process_time()
    x, value = put(n, n // 8)
    seconds = time.process_time() - begun
    error = np.abs(value - merton(x))[abs(x) < 0.4].max()
    print(f"{n:5} points: error {error:.0e}, {seconds:.2f} s; dense {dense_seconds(n, n // 8):.2f} s")

# %%
# The skew
# --------
# The formula of Black and Scholes knows no jumps. The volatility that it needs for the same value depends on the
# ratio of price and strike, as it does in real markets: a strike far below the price is reached by a jump rather
# than in small steps.


def black_scholes(x, volatility):
    d = (x + rate) / volatility - volatility / 2
    return np.exp(-rate) * norm.cdf(-d) - np.exp(x) * norm.cdf(-d - volatility)


shown = abs(x) < 0.41
implied = [brentq(lambda v, i=i: black_scholes(x[i], v) - value[i], 0.02, 1.0) for i in np.flatnonzero(shown)]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained")
left.plot(np.exp(x[shown]), value[shown], color="#0072B2", linewidth=2, label="with jumps")
left.plot(np.exp(x[shown]), black_scholes(x[shown], volatility), color="#D55E00", linestyle="--", label="without jumps")
left.plot(np.exp(x[shown]), np.maximum(1 - np.exp(x[shown]), 0), color="0.6", linestyle=":", label="at the end")
left.set(xlabel="price over strike", ylabel="value of the put over strike")
left.legend(frameon=False)
right.plot(np.exp(x[shown]), np.array(implied), color="#0072B2", linewidth=2)
right.axhline(volatility, color="#D55E00", linestyle="--")
right.set(xlabel="price over strike", ylabel="implied volatility", ylim=(0, 0.42))
for ax in (left, right):
    ax.grid(color="0.9")
plt.show()

# %%
# References:
#
# .. [#merton] Merton, R. C., Option pricing when underlying stock returns are discontinuous, Journal of Financial
#    Economics 3, 1976.
# .. [#rannacher] Rannacher, R., Finite element solution of diffusion problems with irregular data, Numerische
#    Mathematik 43, 1984.
