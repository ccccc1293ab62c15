"""What `sweep` and `fit-checkpoint` show while they run, on terminals of any width."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from structmat.cli import _progress
from structmat.cli._progress import checkpoint_progress, curve_progress, sweep_progress
from structmat.fit import CurveProgress, FitProgress
from structmat.studies import CheckpointProgress, SweepProgress

LAYER = "model.layers.11.self_attn.查询_proj"
METHODS = ["cdd", "truncated-svd", "block-circulant", "sparse-fourier", "monarch"]


def shown(capfd, progress, state):
    """Return what is seen of a state, without the codes of the terminal."""
    with progress(quiet=False) as report:
        report(state)
    err = capfd.readouterr().err
    assert "…" not in err
    return err


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("columns", "text"),
    [(40, "{}"), (60, "{}"), (80, "{}, 17 factors, blocks of 768"), (160, LAYER + " {}, 17 factors, blocks of 768")],
)
def test_the_method_of_a_sweep_is_seen_on_any_terminal(terminal, capfd, columns, text, method):
    terminal(columns)
    name = f"{LAYER} {method}, 17 factors, blocks of 768, seed 0 (0123456789abcdef)"
    err = shown(capfd, sweep_progress, SweepProgress(name, method, 1_234, 19_999, 10.0, 3000.0))
    assert text.format(method) in err
    assert "1234/19999" in err
    assert columns == 40 or "0:50:00 left" in err


@pytest.mark.parametrize(("columns", "named"), [(40, False), (60, False), (80, True), (140, True)])
def test_the_error_of_a_layer_is_seen_on_any_terminal(terminal, capfd, columns, named):
    terminal(columns)
    err = shown(capfd, checkpoint_progress, CheckpointProgress(LAYER, 23, 144, 0.25, 0.123456))
    assert "error 0.1235" in err
    assert "23 of 144 layers" in err
    assert (f"{LAYER}: error 0.1235" in err) == named


def test_the_bar_of_a_curve_counts_the_points_that_are_finished(terminal, monkeypatch):
    """While the last one is fitted it is not full."""
    terminal(120)
    seen = []
    monkeypatch.setattr(_progress.Progress, "update", lambda self, task, **state: seen.append(state))
    fit = FitProgress("random", 750, 1500, 0.25, "exploration", 5, 0.25, None)
    with curve_progress(quiet=False) as report:
        for point in (1, 2, 3):
            report(CurveProgress(5, point, 3, fit, 0.0, None))
    assert [(state["count"], state["completed"], state["total"]) for state in seen] == [
        ("1/3", 0, 3),
        ("2/3", 1, 3),
        ("3/3", 2, 3),
    ]


def test_what_earlier_runs_did_says_nothing_about_the_time_left(terminal, capfd, monkeypatch):
    """A tenth of the work took 100 seconds, and a tenth is left."""
    terminal(140)
    times = iter([0.0, 100.0])
    monkeypatch.setattr(_progress, "time", SimpleNamespace(monotonic=lambda: next(times)))
    with checkpoint_progress(quiet=False) as report:
        for n_done, share in ((8, 0.8), (9, 0.9)):
            report(CheckpointProgress(LAYER, n_done, 10, share, 0.5))
    assert "0:01:40 left" in capfd.readouterr().err


def test_names_are_no_markup_and_long_ones_are_clipped(terminal, capfd):
    terminal(60)
    with sweep_progress(quiet=False) as report:
        report(SweepProgress("[red]\x1b[0m" + 90 * "x", None, 0, 0, 0.0, None))
    assert "reading [red]\\x1b[0mxxx" in capfd.readouterr().err
