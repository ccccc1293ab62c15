"""`report` and `study_figure`: a page of a study, with its plots and tables, and a single plot."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from structmat._arrays.checks import one_of
from structmat._arrays.errors import ArgumentValueError
from structmat.io import atomic_write
from structmat.studies._html import Section, html_page
from structmat.studies._sweep._run import load_study
from structmat.studies._sweep._study import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["report", "study_figure"]

_PAGE = "report.html"


def report(path: str | os.PathLike[str], html: str | os.PathLike[str] | None = None, *, force: bool = False) -> Study:
    """Write a self-contained page with the plots and tables of a sweep, complete or so far.

    Parameters
    ----------
    path : path-like
        The folder of the sweep, which may still be running.
    html : path-like, optional
        The page. By default ``report.html`` in the folder, where it is replaced.
    force : bool, default False
        Whether to replace an existing file `html`.

    Returns
    -------
    Study
        The study shown on the page.

    Raises
    ------
    ValueError
        If the folder holds no sweep, or nothing is done yet.
    FileExistsError
        If `html` exists and not `force`.
    OSError
        If a file cannot be read or written.
    ImportError
        If matplotlib or jinja2 is missing.

    See Also
    --------
    load_study : Reads the results without making a page.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from structmat.studies import SweepConfig, report, sweep
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = sweep(SweepConfig({"identity": np.eye(4)}), folder)
    ...     study = report(folder)
    ...     Path(folder, "report.html").exists(), study.complete
    (True, True)
    """
    study = load_study(path)
    page = study_page(study, Path(path).resolve().name)
    with atomic_write(Path(path, _PAGE) if html is None else html, force=force or html is None) as file:
        file.write(page)
    return study


def study_figure(study: Study, kind: Literal["means", "layers", "ratios"] = "means") -> Figure:
    """Draw the table of a study; needs the extra ``plot``.

    Parameters
    ----------
    study : Study
        What `sweep` or `load_study` returned.
    kind : {"means", "layers", "ratios"}, default "means"
        The means over the layers, of all methods against the number of parameters and of CDD against the number of
        factors; or a panel for each layer; or the error of CDD over that of the truncated SVD, layer by setting.

    Returns
    -------
    matplotlib.figure.Figure
        Save it by ``figure.savefig(path)``.

    Raises
    ------
    ValueError
        If `kind` is another word, or there is nothing to draw.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from structmat.studies import SweepConfig, study_figure, sweep
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     study = sweep(SweepConfig({"identity": np.eye(4)}), folder)
    >>> [axes.get_xlabel() for axes in study_figure(study).axes]
    ['parameters, % of dense', 'number of factors (CDD; thin lines are layers)']
    """
    from structmat.studies._sweep import _figures  # noqa: PLC0415  # matplotlib is slow to import

    figures = {
        "means": _figures.means_figure,
        "layers": _figures.layers_figure,
        "ratios": _figures.ratio_figure,
    }
    figure = figures[one_of(kind, "study_figure", "kind", tuple(figures))](study) if study.rows else None
    if figure is None:
        raise ArgumentValueError("study_figure", "study", f'must have rows to draw "{kind}" of')
    return figure


def study_page(study: Study, name: str) -> bytes:
    """Return the page of a study."""
    from structmat.studies._sweep._figures import layers_figure, means_figure, ratio_figure  # noqa: PLC0415  # an extra

    if not study.rows:
        raise ArgumentValueError("report", None, f"{name} has no results yet")
    sections = [
        Section(
            "Error against size",
            "Means over the layers; the band reaches from the best to the worst layer. Every method uses at most as "
            "many parameters as the CDD product that it is compared with. Only trained numbers count: where sparse "
            "Fourier coefficients stand costs nothing here.",
            means_figure(study),
        ),
        Section(
            "Means over the layers",
            columns=("method", "factors", "block", "layers", "% of dense", "error", "least", "most", "seconds"),
            rows=[
                [
                    *(m.method, str(m.n_factors), str(m.block), str(m.n_layers), f"{100 * m.share:.3g}"),
                    *(f"{value:.4g}" for value in (m.error, m.least, m.most)),
                    f"{m.seconds:.2f}",
                ]
                for m in study.means()
            ],
        ),
    ]
    if (ratios := ratio_figure(study)) is not None:
        text = "Below one, blue: the CDD product is nearer to the matrix than the truncated SVD of the same size."
        sections.append(Section("CDD beside the truncated SVD, layer by layer", text, ratios))
    sections.append(Section("Layer by layer", figure=layers_figure(study)))
    sections.append(
        Section(
            "All results",
            columns=("layer", "shape", "norm", "method", "factors", "block", "seed", "parameters", "error", "seconds"),
            rows=[
                [
                    *(r.layer, f"{r.rows} x {r.cols}", f"{r.norm:.4g}", r.method, str(r.n_factors), str(r.block_size)),
                    *("" if r.seed is None else str(r.seed), f"{r.n_parameters:,}", f"{r.error:.5g}"),
                    f"{r.seconds:.2f}",
                ]
                for r in study.rows
            ],
            folded=True,
        )
    )
    return html_page(f"Study: {name}", _facts(study), sections)


def _facts(study: Study) -> dict[str, str]:
    done = f"{len(study.rows):,} of {study.n_planned:,}"
    facts = {
        "layers": f"{len(study.layers()):,}",
        "results": f"{done}, complete" if study.complete else f"{done}: unfinished, the same sweep continues it",
        "fits": f"{sum(row.seconds for row in study.rows):,.1f} s in all",
    }
    if cut := sum(row.status != "completed" for row in study.rows):
        facts["cut by the time limit"] = f"{cut:,} fits"
    if study.left_out:
        facts["not available"] = "; ".join(f"{text}: {count:,}" for text, count in study.left_out.items())
    return facts
