"""Ctrl-C propagates as everywhere in Python, or the best so far comes back if asked for; progress in notebooks."""

from __future__ import annotations

import contextlib
import signal
import sys
from types import ModuleType

import numpy as np
import pytest

from structmat import _progress
from structmat.fit import _error_curve as curve_module
from structmat.fit import _three_factor_search as three_factors
from structmat.fit import error_curve, fit_cdd
from structmat.fit._objective import Objective
from tests.cases import in_one_test
from tests.fit.matrices import closed_form_errors

W = np.random.default_rng(0).standard_normal((12, 12))


@pytest.fixture(autouse=True)
def own_handlers():
    """Nothing touches the handlers of signals."""

    def handlers():
        return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    before = handlers()
    assert before[0] is signal.default_int_handler
    yield
    assert handlers() == before


class Interrupting:
    """A callback that is interrupted at one of its calls."""

    def __init__(self, after):
        self.after, self.heard = after, []

    def __call__(self, progress):
        self.heard.append(progress)
        if len(self.heard) == self.after:
            signal.raise_signal(signal.SIGINT)


def interrupting(function):
    """Return a function that is interrupted before it begins."""

    def interrupted(*arguments, **options):
        signal.raise_signal(signal.SIGINT)
        return function(*arguments, **options)

    return interrupted


def build_a_start_of_three(monkeypatch):
    ((name, start),) = three_factors.STARTS.items()
    monkeypatch.setitem(three_factors.STARTS, name, interrupting(start))


def build_a_random_chain(monkeypatch):
    monkeypatch.setattr(Objective, "random", interrupting(Objective.random))


def build_a_closed_form(monkeypatch):
    monkeypatch.setitem(three_factors.CLOSED_FORMS, "circulant", interrupting(three_factors.CLOSED_FORMS["circulant"]))


PLACES = [(3, build_a_start_of_three), (5, build_a_start_of_three), (5, build_a_random_chain)]


@pytest.mark.parametrize("n_factors", [3, 5])
def test_a_loop_of_fits_ends_at_the_first(n_factors):
    def fit_three_times():
        for seed in range(3):
            fit_cdd(W, n_factors, rng=seed, callback=hear, max_iter=30, restarts=1)

    hear = Interrupting(10)
    with pytest.raises(KeyboardInterrupt):
        fit_three_times()
    assert len(hear.heard) == 10


def test_curves_end_too():
    with pytest.raises(KeyboardInterrupt):
        error_curve(W, 5, rng=0, callback=Interrupting(3))


@pytest.mark.parametrize("n_factors", [3, 5])
@pytest.mark.parametrize("weights", [None, np.arange(1.0, 13.0)])
def test_a_callback_ends_a_fit_by_stop_iteration(n_factors, weights):
    def hear(progress):
        heard.append(progress)
        if len(heard) == 20:
            raise StopIteration

    heard = []
    result = fit_cdd(W, n_factors, input_second_moment=weights, rng=0, callback=hear)
    assert (result.status, len(heard)) == ("callback", 20)
    assert "callback" in result.message
    if weights is None:
        assert result.error <= min(closed_form_errors(W, 12).values())


@pytest.mark.parametrize(("n_factors", "place"), PLACES)
def test_it_propagates_from_where_a_start_is_built(monkeypatch, n_factors, place):
    place(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        fit_cdd(W, n_factors, rng=0)


@pytest.mark.parametrize(("n_factors", "place"), PLACES)
def test_nothing_is_lost_while_a_start_is_built(monkeypatch, n_factors, place):
    place(monkeypatch)
    result = fit_cdd(W, n_factors, rng=0, on_interrupt="return")
    assert result.status == "interrupted"
    monkeypatch.undo()
    assert result.error <= fit_cdd(W, n_factors, rng=0, time_limit=0).error


@pytest.mark.parametrize("weights", [None, np.arange(1.0, 13.0), np.diag(np.arange(1.0, 13.0)) + 1.0])
@in_one_test("n_factors", [3, 5])
@in_one_test("after", [1, 40, 320])
def test_the_run_so_far_is_kept_from_inside_an_iteration(n_factors, after, weights):
    hear = Interrupting(after)
    options = {"input_second_moment": weights, "rng": 0, "tol": 0.0}
    result = fit_cdd(W, n_factors, callback=hear, on_interrupt="return", **options)
    assert result.status == "interrupted"
    assert "interrupted" in result.message
    assert len(hear.heard) <= after + 6  # of a weighted fit, its closed forms
    assert result.error < 1.0
    if weights is None:
        assert result.error <= min(closed_form_errors(W, 12).values())
    if weights is None and hear.heard[-1].phase != "exploration":  # large steps go through higher errors
        assert result.error <= hear.heard[-1].best * (1 + 1e-6)


def test_a_polish_is_kept():
    """The last iterate of a long descent, not the start of it."""

    def hear(progress):
        if progress.phase == "polish":
            errors.append(progress.error)
            if len(errors) == 60:
                raise KeyboardInterrupt

    errors = []
    result = fit_cdd(W, 5, rng=0, tol=0.0, callback=hear, on_interrupt="return")
    assert result.error <= errors[-2] * (1 + 1e-6)


def test_without_a_product_there_is_nothing_to_return(monkeypatch):
    build_a_closed_form(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        fit_cdd(W, rng=0, on_interrupt="return")


def test_a_curve_keeps_its_points():
    def hear(progress):
        if progress.n_factors == 3:
            signal.raise_signal(signal.SIGINT)

    curve = error_curve(W, n_factors=[1, 3, 5], rng=0, callback=hear, on_interrupt="return")
    assert curve.ended == "interrupted"
    assert curve.status == ("completed", "stopped: interrupted", "not made")
    assert curve.processor_seconds[1] > 0.0
    assert curve.processor_seconds[2] == curve.clock_seconds[2] == 0.0
    assert curve.error[1] < curve.error[0]
    assert np.isnan(curve.error[2])
    assert curve.baselines


def test_baselines_that_take_too_long_are_left_out(monkeypatch):
    monkeypatch.setattr(curve_module, "baseline_errors", interrupting(curve_module.baseline_errors))
    curve = error_curve(W, n_factors=[1, 3], rng=0, on_interrupt="return")
    assert (curve.ended, curve.baselines) == ("interrupted", {})
    assert curve.status == ("completed", "completed")


@pytest.mark.parametrize("call", [lambda **o: fit_cdd(W, rng=0, **o), lambda **o: error_curve(W, [3], rng=0, **o)])
def test_a_notebook_shows_how_far_a_fit_is(monkeypatch, call):
    shown, delays = [], []

    @contextlib.contextmanager
    def line(console, *, hidden, delay):
        delays.append((console.is_jupyter, hidden, delay))
        yield lambda text, left: shown.append((text, left))

    rich = pytest.importorskip("rich.console")
    monkeypatch.setattr(_progress, "progress_line", line)
    call()
    assert not delays  # no notebook
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setattr(rich, "_is_jupyter", lambda: True)
    monkeypatch.setattr(_progress, "find_spec", lambda name: True)
    call(callback=lambda _: None)
    assert not delays  # the user shows it
    call()
    assert delays == [(True, False, 2.0)]
    assert "best error 0." in shown[-1][0]
    monkeypatch.setattr(_progress, "find_spec", lambda name: name == "rich")
    call()
    assert len(delays) == 1  # nothing to show it with
    monkeypatch.setattr(_progress, "find_spec", lambda name: True)
    call(progress=False)
    assert len(delays) == 1


@pytest.mark.parametrize("call", [lambda **o: fit_cdd(W, rng=0, **o), lambda **o: error_curve(W, [3], rng=0, **o)])
def test_a_session_on_a_terminal_shows_how_far_a_fit_is_and_a_script_does_not(monkeypatch, capsys, call):
    shown = []

    @contextlib.contextmanager
    def line(console, *, hidden, delay=0.0):
        yield lambda text, left: shown.append(text)

    rich = pytest.importorskip("rich.console")
    monkeypatch.setattr(_progress, "progress_line", line)
    monkeypatch.setattr(rich.Console, "is_terminal", True)
    monkeypatch.delattr(sys, "ps1", raising=False)
    call()
    assert not shown  # a script
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    call()
    assert "best error 0." in shown[-1]
    shown.clear()
    call(callback=lambda _: None)
    assert not shown
    call(progress=True, callback=lambda _: None)
    assert shown
    monkeypatch.setattr(rich.Console, "is_terminal", False)
    shown.clear()
    call()
    assert (shown, capsys.readouterr().err) == ([], "")
