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

from structmat.studies._sweep._config import TEMPLATE, MatrixSource, SweepConfig, read_config
from structmat.studies._sweep._page import report
from structmat.studies._sweep._run import SweepProgress, load_study, sweep
from structmat.studies._sweep._study import Study, StudyMean, StudyRow

__all__ = [
    "TEMPLATE",
    "MatrixSource",
    "Study",
    "StudyMean",
    "StudyRow",
    "SweepConfig",
    "SweepProgress",
    "load_study",
    "read_config",
    "report",
    "sweep",
]
