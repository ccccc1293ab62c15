"""The command `structmat report`."""

from __future__ import annotations

from pathlib import Path

from structmat.cli._errors import blaming
from structmat.cli._options import OutputOptions
from structmat.cli._outputs import check_outputs, plot_module, write_figure
from structmat.cli._tables import print_json, print_study

__all__ = ["report"]

_OUTPUT = OutputOptions()


def report(
    folder: Path,
    /,
    *,
    html: Path | None = None,
    csv: Path | None = None,
    plot: Path | None = None,
    output: OutputOptions = _OUTPUT,
) -> None:
    """Make plots and tables of a sweep, complete or so far.

    Writes a self-contained page, `report.html` in the folder of the sweep, in the place of an earlier one, and prints
    the means over the layers.
    Example: `structmat report study --csv study.csv --plot study.png`

    Parameters
    ----------
    folder
        Folder of the sweep, which may still be running.
    html
        Write the page to this file instead, as in `--html study.html`.
    csv
        Write all rows to this file, as in `--csv study.csv`.
    plot
        Draw the means over the layers to this file, as in `--plot study.png` (or `.pdf`, `.svg`).
    output
        What is printed and written.
    """
    from structmat import studies  # noqa: PLC0415  # an extra

    check_outputs({"FOLDER": folder}, {"--html": html, "--csv": csv, "--plot": plot}, force=output.force)
    with blaming("FOLDER"):
        study = studies.report(folder, html, force=output.force)
    if csv is not None:
        with blaming("--csv"):
            study.save(csv, force=output.force)
    if plot is not None:
        plot_module()
        write_figure(studies.study_figure(study), plot, force=output.force)
    page = folder / "report.html" if html is None else html
    if output.json:
        files = {"html": page, "csv": csv, "plot": plot}
        print_json({**study.to_dict(), **{name: None if path is None else str(path) for name, path in files.items()}})
    else:
        print_study(study, [f"wrote {path}" for path in (page, csv, plot) if path is not None])
