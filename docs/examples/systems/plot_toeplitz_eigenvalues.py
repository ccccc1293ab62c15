"""
What are the eigenvalues of a large Toeplitz matrix?
====================================================

Whoever meets a covariance matrix or the matrix of a difference scheme wants to know its condition and its
determinant for large n, without computing a single eigenvalue. Its *symbol*, the function whose Fourier
coefficients are the entries, tells both: the eigenvalues spread like the values of the symbol, and the determinant
grows like its geometric mean.
"""

# %%
# Symbol and eigenvalues
# ----------------------
# The symbol is :math:`f(\theta) = \sum_k t_k e^{i k \theta}`; of a covariance matrix it is the power spectrum of
# the process. By Szegő's theorem the sorted eigenvalues come close to the sorted values of f at equally spaced
# angles [#grenander]_. So do those of a circulant that is close to the matrix, such as Strang's, which has them in
# closed form: they are the crosses in the figure below.

import time

import matplotlib.pyplot as plt
import numpy as np

import structmat as sm
from structmat import preconditioners

coefficients = {
    "$0.6^{|k|}$": lambda k: 0.6**k,
    "Gaussian, and noise": lambda k: np.exp(-((k / 2) ** 2) / 2) + 0.05 * (k == 0),
    "$(1 + |k|)^{-2}$": lambda k: (1.0 + k) ** -2,
}


def symbol(coefficient, points=4096):
    """The values at equally spaced angles from 0 to 2 pi."""
    k = np.arange(points)
    return np.fft.fft(coefficient(np.minimum(k, points - k))).real


# %%
# The determinant
# ---------------
# For large n the determinant is :math:`G^n E`, with the geometric mean G of the symbol and a constant E: with the
# Fourier coefficients :math:`c_k` of log f, :math:`\log \det T_n \approx n c_0 + \sum_k k \, c_k c_{-k}` (the
# strong limit theorem of Szegő [#szego]_). The left side is exact here by
# :meth:`~structmat.LinearOperator.slogdet`.


def limit(values, n):
    """The logarithm of G^n E from values of the symbol."""
    c = np.fft.ifft(np.log(values)).real
    half = c.size // 2
    return n * c[0] + np.sum(np.arange(1, half) * c[1:half] ** 2)


n, k = 64, np.arange(500)
angles = np.pi * np.arange(1, n + 1) / (n + 1)
sizes = np.unique(np.geomspace(1, k.size, 25).astype(int))
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.6), layout="constrained")
for (name, coefficient), colour in zip(coefficients.items(), ("#0072B2", "#D55E00", "#009E73"), strict=True):
    T, values = sm.Toeplitz(coefficient(k[:n])), symbol(coefficient)
    left.semilogy(np.pi * np.arange(2048) / 2048, values[:2048], color=colour, alpha=0.35, linewidth=5)
    left.semilogy(angles, np.linalg.eigvalsh(T.to_dense())[::-1], "o", color=colour, markersize=3, label=name)
    circulant = np.sort(preconditioners.strang(T).eigvals().real)[::-1]
    left.semilogy(angles, circulant, "x", color="black", markersize=3)
    exact = [sm.Toeplitz(coefficient(k[:size])).slogdet().logabsdet for size in sizes]
    error = np.abs(np.array(exact) - [limit(values, size) for size in sizes])
    right.loglog(sizes, np.maximum(error, 1e-15), "o-", color=colour, markersize=4, label=name)
left.set(xlabel="angle", ylabel="eigenvalue", title=f"symbol, and eigenvalues for n = {n}")
right.set(xlabel="n", ylabel="error", title="limit of the log-determinant")
right.grid(color="0.9")
for ax in (left, right):
    ax.legend(frameon=False)
plt.show()

# %%
# For a first-order autoregression the limit is exact from n = 1 on, and where entries fall off fast, it is soon
# exact up to rounding. Where they fall off slowly, so does the error. A symbol with zeros or poles, as of a process
# with long memory, has no such limit: the exact determinant serves there as well.

n = 20_000
for name, coefficient in coefficients.items():
    T = sm.Toeplitz(coefficient(np.arange(n)))
    begun = time.process_time()
    exact = T.slogdet().logabsdet
    spent = time.process_time() - begun
    print(f"{name:>20}, n = {n:,}: {exact:.6f} in {spent:.2f} s, the limit {limit(symbol(coefficient), n):.6f}")

# %%
# What is the condition number? The ratio of the largest to the smallest value of the symbol, nearly: it decides how
# many steps conjugate gradients take (:doc:`plot_toeplitz_preconditioners`). References:
#
# .. [#grenander] Grenander, U., Szegő, G., Toeplitz Forms and Their Applications, University of California Press,
#    1958.
# .. [#szego] Böttcher, A., Silbermann, B., Introduction to Large Truncated Toeplitz Matrices, Springer, 1999,
#    chapter 5.
