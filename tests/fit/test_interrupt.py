"""Ctrl-C: the best so far comes back, wherever a fit is; the second time it raises."""

from __future__ import annotations

import signal
import threading

import numpy as np
import pytest

from structmat.cli import main
from structmat.fit import error_curve, fit_cdd
from structmat.fit._control import listening
from structmat.fit._many_factors import search
from structmat.fit._three_factors import search as three_factors

W = np.random.default_rng(0).standard_normal((12, 12))


@pytest.fixture(autouse=True)
def own_handler():
    """Every test leaves the handler of Ctrl-C as it was."""
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def interrupting(function, number=signal.SIGINT, times=1):
    """Return a function that is interrupted before it begins."""

    def interrupted(*arguments, **options):
        for _ in range(times):
            signal.raise_signal(number)
        return function(*arguments, **options)

    return interrupted


def build_a_start_of_three(monkeypatch, **options):
    ((name, start),) = three_factors.STARTS
    monkeypatch.setattr(three_factors, "STARTS", ((name, interrupting(start, **options)),))


def build_a_random_chain(monkeypatch, **options):
    monkeypatch.setattr(search, "random_orthogonal", interrupting(search.random_orthogonal, **options))


@pytest.mark.parametrize(
    ("n_factors", "place"), [(3, build_a_start_of_three), (5, build_a_start_of_three), (5, build_a_random_chain)]
)
def test_while_a_start_is_built_nothing_is_lost(monkeypatch, n_factors, place):
    place(monkeypatch)
    result = fit_cdd(W, n_factors, rng=0)
    assert result.stopped == "interrupted"
    monkeypatch.undo()
    assert result.error <= fit_cdd(W, n_factors, rng=0, time_limit=0).error


@pytest.mark.parametrize("n_factors", [3, 5])
def test_inside_an_iteration_the_run_so_far_is_kept(n_factors):
    def hear(progress):
        seen.append(progress.error)
        if len(seen) == 40:
            signal.raise_signal(signal.SIGINT)

    seen = []
    result = fit_cdd(W, n_factors, rng=0, callback=hear)
    assert result.stopped == "interrupted"
    assert len(seen) <= 44  # at most four runs end
    assert result.error < 1.0


def test_the_second_time_it_raises(monkeypatch):
    build_a_start_of_three(monkeypatch, times=2)
    with pytest.raises(KeyboardInterrupt):
        fit_cdd(W, rng=0)


def test_a_curve_keeps_its_points(monkeypatch):
    def hear(progress):
        if progress.n_factors == 3:
            signal.raise_signal(signal.SIGINT)

    curve = error_curve(W, n_factors=[1, 3, 5], rng=0, callback=hear)
    assert curve.stopped == "interrupted"
    assert curve.seconds[1] > 0.0
    assert curve.seconds[2] == 0.0
    assert curve.error[2] == curve.error[1] < curve.error[0]


def test_a_fit_inside_another_tells_that_too():
    """Else only the inner one would end, and the outer one go on."""
    outer, inner = threading.Event(), threading.Event()
    with listening(outer), listening(inner):
        signal.raise_signal(signal.SIGINT)
    assert (outer.is_set(), inner.is_set()) == (True, True)


def test_other_threads_and_other_handlers_are_left_alone():
    event = threading.Event()

    def in_a_thread():
        with listening(event):
            found.append(signal.getsignal(signal.SIGINT))

    found = []
    thread = threading.Thread(target=in_a_thread)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with listening(event):
            signal.raise_signal(signal.SIGINT)
        assert not event.is_set()
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_prints_and_writes_what_it_has(tmp_path, monkeypatch, capsys, number):
    build_a_start_of_three(monkeypatch, number=number)
    np.save(tmp_path / "W.npy", W)
    handler = signal.getsignal(signal.SIGTERM)
    status = main(["fit", f"{tmp_path}/W.npy", "--out", f"{tmp_path}/fit.safetensors"])
    out, err = capsys.readouterr()
    assert (status, err) == (130, "structmat fit: interrupted\n")
    assert "interrupted" in out
    assert (tmp_path / "fit.safetensors").exists()
    assert signal.getsignal(signal.SIGTERM) is handler
