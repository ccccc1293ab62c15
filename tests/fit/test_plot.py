"""The figures of fits and of error curves: what their axes show, without a warning."""

from __future__ import annotations

import dataclasses
import io
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.colors import to_hex

from structmat.fit import ErrorCurve, error_curve, fit_cdd
from structmat.plot import draw_curve, fit_figure

# Fits


RNG = np.random.default_rng(0)
MATRICES = {
    "one entry": np.array([[2.0]]),
    "one row": RNG.standard_normal((1, 9)),
    "one column": RNG.standard_normal((40, 1)).astype("float32"),
    "wide": RNG.standard_normal((5, 23)),
    "tall": RNG.standard_normal((60, 7)),
    "complex": RNG.standard_normal((12, 12)) + 1j * RNG.standard_normal((12, 12)),
    "zero": np.zeros((4, 6)),
    "constant": np.full((6, 6), 3.0),
    "diagonal": np.diag(RNG.standard_normal(50)),
    "huge": 1e300 * RNG.standard_normal((6, 6)),
    "tiny": 1e-40 * RNG.standard_normal((6, 6)).astype("float32"),
    "integers": np.arange(20).reshape(4, 5),
}


def drawn(figure):
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=40)
    return content.getvalue()


@pytest.fixture(params=list(MATRICES), scope="module")
def case(request):
    W = MATRICES[request.param]
    result = fit_cdd(W, rng=0, max_iter=20)
    return W, result, fit_figure(W, result)


def test_it_draws_without_a_warning(case):
    assert drawn(case[2]).startswith(b"\x89PNG")


def test_images_show_the_moduli_on_one_scale_and_the_residual_on_its_own(case):
    W, result, figure = case
    axes = figure.axes[:3]
    fitted = result.operator.to_dense()
    assert [a.get_title() for a in axes] == ["|W|", "|fit|", "|residual|"]
    images = [a.images[0] for a in axes]
    size = np.abs(W).max()
    for image, want in zip(images, (W, fitted, W - fitted), strict=True):
        assert image.get_array().shape == W.shape
        np.testing.assert_allclose(image.get_array() / (size or 1), np.abs(want) / (size or 1), atol=1e-6)
    assert images[0].get_clim() == images[1].get_clim()
    left = np.abs(images[2].get_array())
    for image in images:
        low, high = image.get_clim()
        assert 0 == low < high
    assert not left.any() or left.max() >= images[2].get_clim()[1]  # no panel is all of one colour


def test_singular_values_are_relative_to_the_largest_of_w(case):
    W, result, figure = case
    ax = figure.axes[5]
    lines = {line.get_label().split()[0]: line for line in ax.get_lines()}
    assert list(lines) == ["W", "fit", "residual"]
    assert len({to_hex(line.get_color()) for line in lines.values()}) == 3
    assert ax.get_yscale() == "log"
    unit = float(np.abs(W).max()) or 1.0
    scaled, fitted = W / unit, result.operator.to_dense() / unit
    largest = np.linalg.svd(scaled, compute_uv=False)[0] or 1.0
    for name, matrix in {"W": scaled, "fit": fitted, "residual": scaled - fitted}.items():
        want = np.linalg.svd(matrix, compute_uv=False) / largest
        np.testing.assert_allclose(np.nan_to_num(lines[name].get_ydata()), want, atol=1e-6)
        np.testing.assert_array_equal(lines[name].get_xdata(), np.arange(1, min(W.shape) + 1))


def test_missing_entries_are_blank():
    W = RNG.standard_normal((12, 12))
    missing = RNG.random((12, 12)) < 0.2
    given = np.where(missing, np.nan, W)
    result = fit_cdd(given, entry_weights=~missing, rng=0)
    figure = fit_figure(given, result)
    assert drawn(figure).startswith(b"\x89PNG")
    for ax, blank in zip(figure.axes[:3], (missing, np.zeros_like(missing), missing), strict=True):
        np.testing.assert_array_equal(np.ma.getmaskarray(ax.images[0].get_array()), blank)
    fitted = result.operator.to_dense()
    largest = np.linalg.svdvals(np.where(missing, 0.0, W))[0]
    for line, part in zip(figure.axes[5].lines, (W, fitted, W - fitted), strict=True):
        want = np.linalg.svdvals(np.where(missing, 0.0, part)) / largest
        np.testing.assert_allclose(line.get_ydata(), want, rtol=1e-7, atol=1e-12)
    assert f"{missing.sum()} entries missing" in figure.get_suptitle()
    with pytest.raises(ValueError, match="fit_figure: W must be finite, or NaN"):
        fit_figure(np.where(missing, np.inf, W), result)


def test_the_title_tells_error_and_parameters():
    W = MATRICES["wide"]
    result = fit_cdd(W, rng=0)
    title = fit_figure(W, result).get_suptitle()
    assert "Diagonal · BlockCirculant · Diagonal fit of a 5 × 23 matrix" in title
    assert f"relative error {result.error:.4g}" in title
    assert f"{result.n_parameters} parameters ({result.n_parameters / W.size:.2%} of dense)" in title


def test_zero_matrices_are_named_in_the_legend():
    legend = fit_figure(MATRICES["zero"], fit_cdd(MATRICES["zero"])).axes[5].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["W (zero)", "fit (zero)", "residual (zero)"]


def test_the_scale_ignores_a_few_large_entries_and_marks_them():
    W = RNG.standard_normal((60, 60))
    W[3, 4] = 1000.0
    figure = fit_figure(W, fit_cdd(W, rng=0, max_iter=3))
    image = figure.axes[0].images[0]
    assert image.get_clim()[1] < 10
    assert image.colorbar.extend == "max"


def test_large_matrices_show_their_leading_singular_values(monkeypatch):
    monkeypatch.setattr("structmat.plot._ALL_SINGULAR_VALUES", 50)
    W = RNG.standard_normal((80, 90)).astype("float32")
    figure = fit_figure(W, fit_cdd(W, rng=0, max_iter=2))
    ax = figure.axes[5]
    assert ax.get_xlabel() == "index: the leading 32 of 80"
    values = np.linalg.svd(W, compute_uv=False)
    np.testing.assert_allclose(ax.get_lines()[0].get_ydata(), values[:32] / values[0], rtol=1e-3)
    assert drawn(figure)


def test_other_libraries_are_read():
    torch = pytest.importorskip("torch")
    W = torch.randn(6, 6)
    result = fit_cdd(W, rng=0, max_iter=5)
    np.testing.assert_allclose(fit_figure(W, result).axes[0].images[0].get_array(), W.abs().numpy(), rtol=1e-6)


def test_another_matrix_is_refused():
    result = fit_cdd(np.ones((3, 4)))
    with pytest.raises(ValueError, match=r"fit_figure: W must have the shape of the fit, \(3, 4\), got \(4, 3\)"):
        fit_figure(np.ones((4, 3)), result)
    with pytest.raises(ValueError, match="fit_figure: W must be a non-empty matrix"):
        fit_figure(np.ones(3), SimpleNamespace(operator=result.operator))


def test_notebooks_show_it():
    W = np.eye(3)
    history = fit_cdd(W, rng=0).plot().lines[0]
    np.testing.assert_array_equal(history.get_ydata(), fit_cdd(W, rng=0).history)
    for figure in (fit_figure(W, fit_cdd(W, rng=0)), error_curve(W, n_factors=[3], rng=0).plot().figure):
        assert figure._repr_png_().startswith(b"\x89PNG")


# Error curves


def make_curve(n_factors, error, **rivals):
    n_factors, error = np.array(n_factors), np.array(error, dtype=float)
    return ErrorCurve(
        n_factors=n_factors,
        n_parameters=10 * n_factors,
        error=error,
        status=tuple("not made" if np.isnan(each) else "completed" for each in error),
        product_factors=n_factors,
        errors=error[None],
        processor_seconds=np.ones(len(n_factors)),
        clock_seconds=np.ones(len(n_factors)),
        baselines={name.replace("_", "-"): tuple(map(np.array, rival)) for name, rival in rivals.items()},
        exact=error == 0.0,
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
    assert drawn(draw_curve(CURVES[name]).figure).startswith(b"\x89PNG")


def test_a_curve_shows_every_family_once_with_its_label():
    right = draw_curve(CURVES["plain"])
    assert "10 × 10 matrix, blocks of 10" in right.get_title()
    lines = {line.get_label(): line for line in right.get_lines() if not line.get_label().startswith("_")}
    assert list(lines) == ["CDD product", "truncated SVD", "sparse Fourier"]
    np.testing.assert_array_equal(lines["truncated SVD"].get_xdata(), [20, 40])
    np.testing.assert_array_equal(lines["truncated SVD"].get_ydata(), [0.8, 0.6])
    np.testing.assert_array_equal(lines["CDD product"].get_xdata(), [10, 20, 30, 40])
    assert len({to_hex(line.get_color()) for line in lines.values()}) == 3
    assert (right.get_xlabel(), right.get_ylabel()) == ("parameters, % of dense", "relative error")


def test_numbers_of_factors_stand_above_the_axes():
    """There they cover no line."""
    for name, numbers, where in (("plain", "1 2 3 4", [10, 20, 30, 40]), ("many points", "1 6 11", [10, 60, 110])):
        (top,) = draw_curve(CURVES[name]).child_axes
        marks = top.get_xticklabels()[: len(where)]
        assert [mark.get_text() for mark in marks] == numbers.split()
        np.testing.assert_allclose(top.get_xticks()[: len(where)], where)
        assert top.get_xlabel() == "factors of the CDD product"
    assert not CURVES["plain"].plot(x="factors").child_axes


@pytest.mark.parametrize("width", [None, "column"])
def test_the_legend_covers_no_line(width):
    ax = CURVES["plain"].plot(width=width)
    ax.figure.draw_without_rendering()
    assert not ax.get_legend().get_window_extent().overlaps(ax.bbox)


def test_exact_fits_have_a_logarithmic_axis_and_are_on_it():
    ax = draw_curve(CURVES["exact"])
    assert ax.get_yscale() == "log"
    low, high = ax.get_ylim()
    assert all((low < line.get_ydata()).all() and (line.get_ydata() < high).all() for line in ax.get_lines())
    assert draw_curve(CURVES["plain"]).get_yscale() == "linear"


def test_a_family_far_below_the_curve_takes_no_decades_from_it():
    curve = make_curve([1, 3], [0.5, 5e-3], truncated_svd=([10, 30], [0.9, 1e-12]))
    ax = draw_curve(curve)
    assert ax.get_yscale() == "log"
    assert ax.get_ylim()[0] > 1e-3


def test_weighted_errors_are_named():
    curve = dataclasses.replace(CURVES["one point"], weighted=True)
    assert draw_curve(curve).get_ylabel() == "weighted relative error"


def test_pyplot_stays_untouched():
    code = (
        "import sys, numpy as np, structmat.plot, structmat.fit; W = np.eye(3)\n"
        "structmat.plot.fit_figure(W, structmat.fit.fit_cdd(W)); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
