"""Claim: block Toeplitz systems of several channels take about a tenth of LAPACK's time, at its level of error.

Systems: the covariances of an autoregression of p variables plus white noise, at all lags. "determinant" is `slogdet`,
"factor and 4 columns" `prepare` with the first `solve`, "4 more columns" another one. LAPACK writes the matrix out and
factors it by Cholesky's method. The backward error is the residual relative to ``norm(T) norm(x) + norm(b)``; that of
the logarithm is the difference from LAPACK's.

Programs: the projections of BSS evaluation, four stereo stems and their estimates, filters of 512 taps in two windows
of a second, by museval, and by museval with the two functions replaced that make and solve its systems; what museval
returns is compared. The metrics of four mono sources by fast_bss_eval, which solves dense systems or iterates ten
times, beside the same by one block Toeplitz system. A vector autoregression of eight series, 50,000 long and of order
64, by least squares in statsmodels and by the multichannel equations of Yule and Walker. A multichannel Wiener filter
of four microphones and 256 taps, by LAPACK. Peers that are not
installed are left out (``pip install museval fast-bss-eval statsmodels``).

Seconds are the processor's, of one core; --out writes ``block_toeplitz.md``.
"""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import _one_thread  # noqa: F401
import numpy as np
import scipy.linalg
import scipy.signal
from _common import begin, finish, parser, table

import structmat as sm


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    begun = time.process_time()
    return function(), time.process_time() - begun


def seconds(value: float) -> str:
    return f"{value:.3f}" if value < 1 else f"{value:.2f}"


def covariances(p: int, n: int) -> np.ndarray:
    """Return the covariances at the lags 0 to n - 1 of an autoregression of p variables plus white noise."""
    rng = np.random.default_rng(p)
    A = rng.standard_normal((p, p))
    A *= 0.95 / np.abs(np.linalg.eigvals(A)).max()
    blocks = [scipy.linalg.solve_discrete_lyapunov(A, np.eye(p))]
    for _ in range(1, n):
        blocks.append(A @ blocks[-1])
    c = np.array(blocks)
    c[0] = (c[0] + c[0].T) / 2 + 0.1 * np.eye(p)
    return c


def backward_error(T: sm.BlockToeplitz, x: np.ndarray, b: np.ndarray) -> str:
    size = np.linalg.norm(T.c, axis=(1, 2)).sum() * np.linalg.norm(x) + np.linalg.norm(b)
    return f"{np.linalg.norm(T @ x - b) / size:.0e}"


def system(p: int, n: int, *, dense: bool) -> list[list[object]]:
    """Return the rows of one size."""
    T = sm.BlockToeplitz(covariances(p, n))
    B = np.random.default_rng(0).standard_normal((n * p, 4))
    (_, log), determinant = timed(T.slogdet)

    def factored() -> tuple[Any, np.ndarray]:
        P = T.prepare()
        return P, P.solve(B)

    (P, x), first = timed(factored)
    _, more = timed(lambda: P.solve(B))
    _, factor = timed(T.cholesky) if dense else (None, 0.0)
    size = f"{p} x {p}, n = {n:,}"
    ours = [size, "structmat", determinant, first, more, factor or "-", backward_error(T, x, B)]
    if not dense:
        return [[*map(shown, ours), "-"]]

    def by_lapack() -> tuple[Any, np.ndarray]:
        L = scipy.linalg.cho_factor(T.to_dense(), lower=True, check_finite=False)
        return L, scipy.linalg.cho_solve(L, B, check_finite=False)

    (L, y), first = timed(by_lapack)
    _, more = timed(lambda: scipy.linalg.cho_solve(L, B, check_finite=False))
    error = f"{abs(2 * np.log(np.diag(L[0])).sum() - log) / abs(log):.0e}"
    lapack = [size, "LAPACK, Cholesky", first - more, first, more, first - more, backward_error(T, y, B)]
    return [[*map(shown, ours), error], [*map(shown, lapack), "-"]]


def shown(value: object) -> object:
    return seconds(value) if isinstance(value, float) else value


def long_system(p: int, n: int) -> list[object]:
    T = sm.BlockToeplitz(covariances(p, n))
    b = np.random.default_rng(0).standard_normal(n * p)
    x, took = timed(lambda: T.solve(b))
    return [f"{p} x {p}, n = {n:,}", seconds(took), f"{np.linalg.norm(T @ x - b) / np.linalg.norm(b):.0e}"]


def music(sources: int, channels: int, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Return stems with the spectra of music, and estimates: a stem through a filter, with the others and noise."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((sources, samples, channels))
    poles = np.poly([0.99, 0.95 * np.exp(0.1j), 0.95 * np.exp(-0.1j)]).real
    stems = scipy.signal.lfilter([1.0], poles, noise, axis=1)
    stems[..., 1:] += 0.7 * stems[..., :1]
    stems /= np.std(stems, axis=1, keepdims=True)
    estimates = scipy.signal.lfilter([0.8, 0.1, -0.05], [1.0], stems, axis=1)
    estimates += 0.1 * (stems.sum(axis=0) - stems) + 0.01 * rng.standard_normal(stems.shape)
    return stems, estimates


def installed(name: str, file: str | None = None) -> ModuleType | None:
    """Return a module, or None where its package is not there; a `file` of it is read alone."""
    found = importlib.util.find_spec(name)
    if found is None:
        return None
    if file is None:
        return import_module(name)
    folder = next(iter(found.submodule_search_locations or []))
    spec: Any = importlib.util.spec_from_file_location(f"{name}_{file}", f"{folder}/{file}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Correlations:
    """What museval uses its Gram matrix for: the correlations of all channels, of which it takes those of one stem."""

    def __init__(self, lags: np.ndarray) -> None:
        self.lags = lags
        """``lags[k, j, c, i, d]``, of block k rows below the diagonal."""
        n, sources, channels = lags.shape[:3]
        self.shape = (sources, sources, channels, channels, n, n)
        p = sources * channels
        blocks = lags.reshape(n, p, p).copy()
        blocks[0] += np.finfo(float).eps * np.eye(p)
        self.solver = sm.BlockToeplitz(blocks).prepare()

    def __getitem__(self, index: tuple[int, int]) -> Correlations:
        j, i = index
        return Correlations(self.lags[:, j : j + 1, :, i : i + 1])


def reference_correlations(references: np.ndarray, taps: int) -> tuple[Correlations, np.ndarray]:
    """Return what museval's `_compute_reference_correlations` does, without the matrix."""
    sources, samples, channels = references.shape
    length = int(2 ** np.ceil(np.log2(samples + taps - 1)))
    spectra = np.fft.fft(references.transpose(0, 2, 1), length)
    flat = spectra.reshape(sources * channels, length)
    products = flat[:, None] * flat.conj()
    lags = np.fft.ifft(products).real[..., -np.arange(taps) % length]
    return Correlations(lags.reshape(sources, channels, sources, channels, taps).transpose(4, 0, 1, 2, 3)), spectra


def projection_filters(G: Any, spectra: np.ndarray, estimate: np.ndarray) -> np.ndarray:
    """Return what museval's `_compute_projection_filters` does."""
    sources, _, channels, _, taps, _ = G.shape
    spectra = spectra.reshape(sources, channels, -1)
    length = spectra.shape[-1]
    own = np.fft.fft(estimate.T, length)
    lags = np.fft.ifft(spectra[:, :, None] * own.conj()).real[..., -np.arange(taps) % length]
    right = lags.transpose(2, 3, 0, 1).reshape(channels, taps * sources * channels)
    filters = G.solver.inv_matvec(right).reshape(channels, taps, sources, channels).transpose(2, 3, 1, 0)
    return filters if sources > 1 else filters[0]


def by_museval(samples: int, taps: int) -> list[object] | None:
    metrics: Any = installed("museval", "metrics")
    if metrics is None:
        return None
    stems, estimates = music(4, 2, samples)
    options = {"window": samples // 2, "hop": samples // 2, "filters_len": taps}

    def run() -> np.ndarray:
        return np.array(metrics.bss_eval(stems, estimates, **options)[:4])

    theirs, slow = timed(run)
    metrics._compute_reference_correlations = reference_correlations
    metrics._compute_projection_filters = projection_filters
    ours, fast = timed(run)
    change = np.nanmax(np.abs(ours - theirs))
    return ["BSS evaluation, four stereo stems", "museval", seconds(slow), seconds(fast), f"{change:.0e} dB"]


def distortions(stems: np.ndarray, estimates: np.ndarray, taps: int) -> np.ndarray:
    """Return the signal-to-distortion ratios of mono sources, each estimate of its own source, in dB."""
    length = int(2 ** np.ceil(np.log2(stems.shape[-1] + taps - 1)))
    S, E = np.fft.rfft(stems, length), np.fft.rfft(estimates, length)
    lags = np.fft.irfft(np.abs(S) ** 2)[:, :taps]
    right = np.fft.irfft(S.conj() * E)[:, :taps]
    share = np.sum(sm.BlockToeplitz(lags[..., None, None]).inv_matvec(right) * right, axis=-1)
    share /= np.sum(estimates**2, axis=-1)
    return 10 * np.log10(share / (1 - share))


def interferences(stems: np.ndarray, estimates: np.ndarray, taps: int) -> np.ndarray:
    """Return the shares of the estimates that filters of all sources explain."""
    p, samples = stems.shape
    length = int(2 ** np.ceil(np.log2(samples + taps - 1)))
    S, E = np.fft.rfft(stems, length), np.fft.rfft(estimates, length)
    blocks = np.fft.irfft(S[:, None].conj() * S)[..., :taps].transpose(2, 0, 1)
    right = np.fft.irfft(S.conj()[None] * E[:, None])[..., :taps].transpose(0, 2, 1).reshape(len(E), taps * p)
    return np.sum(sm.BlockToeplitz(blocks).inv_matvec(right) * right, axis=-1) / np.sum(estimates**2, axis=-1)


def by_fast_bss_eval(samples: int, taps: int) -> list[object] | None:
    package: Any = installed("fast_bss_eval")
    if package is None:
        return None
    torch: Any = import_module("torch")
    stems, estimates = (torch.tensor(v[..., 0]) for v in music(4, 1, samples))
    options = {"filter_length": taps, "compute_permutation": False, "load_diag": None}
    (sdr, sir, _), slow = timed(lambda: package.bss_eval_sources(stems, estimates, **options))

    def run() -> tuple[np.ndarray, np.ndarray]:
        references, given = stems.numpy(), estimates.numpy()
        own = distortions(references, given, taps)
        every = interferences(references, given, taps)
        share = 1 / (1 + 10 ** (-own / 10))
        return own, 10 * np.log10(share / (every - share))

    (own, other), fast = timed(run)
    change = max(np.abs(sdr.numpy() - own).max(), np.abs(sir.numpy() - other).max())
    return ["BSS evaluation, four mono sources", "fast_bss_eval", seconds(slow), seconds(fast), f"{change:.0e} dB"]


def by_statsmodels(p: int, samples: int, order: int) -> list[object] | None:
    api: Any = installed("statsmodels")
    rng = np.random.default_rng(1)
    A = rng.standard_normal((p, p))
    A *= 0.9 / np.abs(np.linalg.eigvals(A)).max()
    shocks = rng.standard_normal((samples, p))
    x = np.zeros((samples, p))
    for t in range(1, samples):
        x[t] = A @ x[t - 1] + shocks[t]
    x -= x.mean(axis=0)

    def run() -> np.ndarray:
        length = 2 * samples
        X = np.fft.rfft(x, length, axis=0)
        lags = np.fft.irfft(X[:, :, None] * X[:, None].conj(), length, axis=0)[: order + 1] / samples
        # The covariances of x[t - i] and x[t - j] are the transposes of those that a filter of the past has.
        T = sm.BlockToeplitz(lags[:order].swapaxes(1, 2))
        right = lags[1:].swapaxes(1, 2).reshape(order * p, p)
        return T.solve(right).reshape(order, p, p).swapaxes(1, 2)

    ours, fast = timed(run)
    if api is None:
        return None
    model: Any = import_module("statsmodels.tsa.api").VAR(x)
    theirs, slow = timed(lambda: model.fit(order, trend="n").coefs)
    change = np.abs(theirs - ours).max()
    name = f"autoregression, {p} series of {samples:,}, order {order}"
    return [name, "statsmodels", seconds(slow), seconds(fast), f"{change:.0e}"]


def by_wiener(p: int, samples: int, taps: int) -> list[object]:
    stems, _ = music(1, p, samples)
    x = stems[0]
    x = x + 0.3 * np.random.default_rng(2).standard_normal(x.shape)
    target = stems[0, :, 0]
    length = 2 * samples
    X, D = np.fft.rfft(x, length, axis=0), np.fft.rfft(target, length)
    lags = np.fft.irfft(X[:, :, None] * X[:, None].conj(), length, axis=0)[:taps] / samples
    right = (np.fft.irfft(X.conj() * D[:, None], length, axis=0)[:taps] / samples).ravel()
    T = sm.BlockToeplitz(lags.swapaxes(1, 2))
    ours, fast = timed(lambda: T.solve(right))
    theirs, slow = timed(lambda: scipy.linalg.solve(T.to_dense(), right, assume_a="pos"))
    change = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
    return [f"Wiener filter, {p} microphones, {taps} taps", "LAPACK", seconds(slow), seconds(fast), f"{change:.0e}"]


def main() -> None:
    options = begin(parser(__doc__))
    quick = options.quick
    header = ["blocks", "by", "determinant", "factor and 4 columns", "4 more columns", "Cholesky factor"]
    header += ["backward error", "log error"]
    system(2, 100, dense=True)  # imports and caches
    rows = system(8, 32 if quick else 512, dense=True) + system(3, 64 if quick else 4000, dense=False)
    long = [long_system(3, 500 if quick else 100_000)]
    samples, taps = (4000, 16) if quick else (88_200, 512)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        programs = [
            by_museval(samples, taps),
            by_fast_bss_eval(samples, taps),
            by_statsmodels(3 if quick else 8, 2000 if quick else 50_000, 4 if quick else 64),
            by_wiener(4, samples, 16 if quick else 256),
        ]
    finish(
        options.out,
        "block_toeplitz",
        "Block Toeplitz matrices",
        "Systems, seconds:",
        table(header, rows, left=2),
        "By iteration, one right-hand side:",
        table(["blocks", "seconds", "relative residual"], long),
        "Programs, seconds:",
        table(["task", "peer", "peer's time", "structmat", "largest difference"], [r for r in programs if r], left=2),
        packages=("structmat", "numpy", "scipy", "museval", "fast_bss_eval", "statsmodels", "torch"),
    )


if __name__ == "__main__":
    main()
