"""From many matrices, methods and settings to a table of errors.

- `_page`: `report`, a page with plots and tables
- `_run`: `sweep` itself, and `load_study`
- `_plan`: its units of work
- `_layers`, `_methods`: the matrices, and what approximates them
- `_config`: what to do, checked
- `_figures`: figures of the table
- `_study`: the table
"""

from __future__ import annotations

from structmat.studies._sweep._config import MatrixSource, SweepConfig, example_config, read_config
from structmat.studies._sweep._page import report, study_figure
from structmat.studies._sweep._run import SweepProgress, load_study, sweep
from structmat.studies._sweep._study import Study, StudyMean, StudyRow

__all__ = [
    "MatrixSource",
    "Study",
    "StudyMean",
    "StudyRow",
    "SweepConfig",
    "SweepProgress",
    "example_config",
    "load_study",
    "read_config",
    "report",
    "study_figure",
    "sweep",
]
