"""Planted products of many factors are read off a matrix, and matrices that are none are left alone."""

import time

import numpy as np
import pytest

from structmat.fit import _search as search
from structmat.fit import fit_cdd
from structmat.fit._control import Control, Stopped
from structmat.fit._peeling_start import _synchronised_gram, peeling_start
from structmat.fit._problem import Problem
from structmat.operators import CDDLayout, CDDProduct
from tests.fit.matrices import normal, planted, relative, with_noise


def control(seconds=60.0):
    return Control(max_iter=1000, tol=1e-7, deadline=time.process_time() + seconds)


def peeled(W, n_factors, rng, limits):
    """The vectors of the first product that is read off a matrix, None where there is none."""
    problem = Problem(W, CDDLayout(W.shape, n_factors), W.dtype)
    for vectors in peeling_start(problem, rng, limits):
        return [v.reshape(-1) for v in vectors]
    return None


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("n", [16, 33])
def test_phases_of_a_gram_matrix_are_exact_without_noise(real, n):
    rng = np.random.default_rng(n)
    phases = normal(rng, n, real=real)
    phases /= np.abs(phases)
    spectrum = np.abs(normal(rng, n, real=False))
    if real:
        spectrum = spectrum + spectrum[-np.arange(n)]
    lags = (np.arange(n)[:, None] - np.arange(n)) % n
    R = np.fft.ifft(spectrum)[lags]
    G = phases[:, None] * (R.real if real else R) * phases.conj()
    layer = _synchronised_gram(G, rng)
    assert layer.explained == pytest.approx(1.0, abs=1e-6)
    assert np.allclose(np.abs(layer.phases), 1.0)
    # They are free up to a phase and a modulation, of which a Fourier transform makes a peak.
    assert np.abs(np.fft.fft(layer.phases * phases.conj())).max() == pytest.approx(n, rel=1e-5)


@pytest.mark.parametrize(
    ("n", "n_factors", "real"), [(32, 5, False), (33, 5, False), (48, 5, True), (40, 4, True), (40, 6, False)]
)
def test_planted_products_are_found(n, n_factors, real):
    W, _ = planted("normal" if real else "complex normal", np.random.default_rng(5), (n, n), n_factors=n_factors)
    vectors = peeled(W, n_factors, np.random.default_rng(0), control())
    assert all(np.iscomplexobj(v) != real for v in vectors)
    assert relative(W, CDDProduct.from_vectors(*vectors).to_dense()) < 0.9
    fit = fit_cdd(W, n_factors, rng=0)
    assert fit.error < 1e-12
    assert fit.start == "peeling"


def test_planted_products_are_found_in_single_precision():
    W = planted("complex normal", np.random.default_rng(6), (32, 32), n_factors=5)[0].astype(np.complex64)
    assert fit_cdd(W, 5, rng=0, max_iter=50, restarts=1).error < 1e-5


def test_under_noise_the_fit_is_as_near_the_truth_as_can_be_known():
    n, n_factors, noise = 64, 5, 0.3
    W, _ = planted("complex normal", np.random.default_rng(7), (n, n), n_factors=n_factors)
    noisy = with_noise(W, noise, np.random.default_rng(8))
    P = fit_cdd(noisy, n_factors, rng=0).operator.to_dense()
    assert np.linalg.norm(P - W) <= 1.1 * noise * np.sqrt(n_factors / n) * np.linalg.norm(W)


@pytest.mark.parametrize("real", [True, False])
def test_other_matrices_are_left_alone(real):
    rng = np.random.default_rng(1)
    for n in (48, 80):
        assert peeled(normal(rng, (n, n), real=real), 5, rng, control()) is None


def test_zeros_do_no_harm():
    W, _ = planted("normal", np.random.default_rng(2), (32, 32), n_factors=5)
    W[[3, 9]] = 0.0
    W[:, 5] = 0.0
    fit = fit_cdd(W, 5, rng=0, time_limit=2)
    assert np.isfinite(fit.operator.to_dense()).all()
    assert fit.error < 0.9


def test_no_time_no_chain():
    W, _ = planted("complex normal", np.random.default_rng(3), (64, 64), n_factors=7)
    with pytest.raises(Stopped):
        peeled(W, 7, np.random.default_rng(0), control(0.0))


def test_an_interrupt_inside_a_start_returns_the_best_so_far(monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(search, "STARTS", {"interrupted": interrupted})
    fit = fit_cdd(np.random.default_rng(5).standard_normal((12, 12)), 5, rng=0, on_interrupt="return")
    assert fit.status == "interrupted"
    assert fit.error < 1.0
