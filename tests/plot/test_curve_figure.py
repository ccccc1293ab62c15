"""The figure of an error curve: lines, scales, labels."""

from __future__ import annotations

import dataclasses
import io
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_hex

from structmat.fit import ErrorCurve
from structmat.plot import curve_figure

RNG = np.random.default_rng(0)


def drawn(figure):
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=40)
    return content.getvalue()


def make_curve(n_factors, error, **rivals):
    n_factors = np.array(n_factors)
    return ErrorCurve(
        n_factors=n_factors,
        n_parameters=10 * n_factors,
        error=np.array(error),
        seconds=np.ones(len(n_factors)),
        baselines={name.replace("_", "-"): tuple(map(np.array, rival)) for name, rival in rivals.items()},
        shape=(10, 10),
        block_size=10,
    )


CURVES = {
    "plain": make_curve(
        [1, 2, 3, 4],
        [0.9, 0.7, 0.7, 0.5],
        truncated_svd=([0, 20, 20, 40], [1.0, 0.8, 0.8, 0.6]),
        monarch=([0, 0, 0, 0], [1.0, 1.0, 1.0, 1.0]),
        sparse_fourier=([10, 20, 30, 40], [0.8, 0.7, 0.6, 0.501]),
    ),
    "one point": make_curve([3], [0.4]),
    "exact": make_curve([1, 3], [0.5, 0.0], sparse_fourier=([10, 30], [0.7, 0.0])),
    "zero matrix": make_curve([1, 2], [0.0, 0.0]),
    "many points": make_curve(range(1, 60), np.linspace(1, 0.1, 59), unknown=(range(1, 60), np.linspace(1, 0.2, 59))),
}


@pytest.mark.parametrize("name", CURVES)
def test_curves_draw_without_a_warning(name):
    assert drawn(curve_figure(CURVES[name])).startswith(b"\x89PNG")


def test_a_curve_shows_every_family_once_with_its_label():
    figure = curve_figure(CURVES["plain"])
    left, right = figure.axes
    assert "10 × 10 matrix, blocks of 10" in figure.get_suptitle()
    lines = {line.get_label(): line for line in right.get_lines()}
    assert list(lines) == ["CDD product", "truncated SVD", "sparse Fourier"]
    np.testing.assert_array_equal(lines["truncated SVD"].get_xdata(), [20, 40])
    np.testing.assert_array_equal(lines["truncated SVD"].get_ydata(), [0.8, 0.6])
    np.testing.assert_array_equal(lines["CDD product"].get_xdata(), [10, 20, 30, 40])
    assert len({to_hex(line.get_color()) for line in lines.values()}) == 3
    assert len({line.get_marker() for line in lines.values()}) == 3
    assert [text.get_text() for text in right.get_legend().get_texts()] == list(lines)
    assert (left.get_xlabel(), left.get_ylabel()) == ("number of factors", "relative error")
    hollow = left.get_lines()[-1]
    np.testing.assert_array_equal(hollow.get_xdata(), [3])
    assert hollow.get_markerfacecolor() == "white"


def test_exact_fits_have_a_logarithmic_axis_and_are_on_it():
    for ax in curve_figure(CURVES["exact"]).axes:
        assert ax.get_yscale() == "log"
        low, high = ax.get_ylim()
        assert all((low < line.get_ydata()).all() and (line.get_ydata() < high).all() for line in ax.get_lines())
    assert curve_figure(CURVES["plain"]).axes[0].get_yscale() == "linear"


def test_a_family_far_below_the_curve_takes_no_decades_from_it():
    curve = make_curve([1, 3], [0.5, 5e-3], truncated_svd=([10, 30], [0.9, 1e-12]))
    for ax in curve_figure(curve).axes:
        assert ax.get_yscale() == "log"
        assert ax.get_ylim()[0] > 1e-3


def test_weighted_errors_are_named():
    curve = dataclasses.replace(CURVES["one point"], weighted=True)
    assert curve_figure(curve).axes[0].get_ylabel() == "weighted relative error"


def test_pyplot_stays_untouched():
    code = (
        "import sys, numpy as np, structmat.plot, structmat.fit; W = np.eye(3)\n"
        "structmat.plot.fit_figure(W, structmat.fit.fit_cdd(W)); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
