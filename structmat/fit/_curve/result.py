"""What `error_curve` returns: one point for each number of factors, beside other families of the same size."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from structmat._array_tools import ArgumentValueError
from structmat._files import checked_suffix, csv_bytes, data_frame, json_bytes, write_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat.fit._result import FitResult

__all__ = ["ErrorCurve"]

_POINT: dict[str, type] = {"n_factors": int, "n_parameters": int, "error": float, "seconds": float}
_CONSTANTS: dict[str, type] = {
    "rows": int,
    "cols": int,
    "block_size": int,
    "first": str,
    "weighted": bool,
    "stopped": str,
}


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ErrorCurve:
    """Error against number of factors, as returned by `error_curve`.

    Attributes
    ----------
    n_factors : ndarray of int
        Numbers of factors, increasing; one for each point of the curve.
    n_parameters : ndarray of int
        Number of entries of all vectors of the product.
    error : ndarray
        Relative error of the product; never rises.
    seconds : ndarray
        Duration of the fit.
    baselines : mapping of str to tuple
        For each family ``(n_parameters, error)``: for every point of the curve the number of parameters and the error
        of the best member of the family with at most as many parameters as the product.
    shape : tuple of int
        Rows and columns of the matrix.
    block_size : int
        Side of the circulant blocks.
    first : str
        Kind of the first factor.
    weighted : bool
        Whether the errors are weighted ones.
    stopped : str
        ``"completed"``, ``"time limit"`` if a fit was cut short, or ``"interrupted"``. In the last two cases points
        that were not reached have the best product of fewer factors, with identity factors appended.
    results : tuple of FitResult
        The fits; empty in a curve that was loaded.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.fit import error_curve
    >>> curve = error_curve(np.outer([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]), n_factors=[3], rng=0)
    >>> bool(curve.error[0] < 1e-12)
    True
    >>> sorted(curve.baselines)
    ['block-circulant', 'monarch', 'sparse-fourier', 'truncated-svd']
    """

    n_factors: NDArray[np.int64]
    n_parameters: NDArray[np.int64]
    error: NDArray[np.float64]
    seconds: NDArray[np.float64]
    baselines: Mapping[str, tuple[NDArray[np.int64], NDArray[np.float64]]]
    shape: tuple[int, int]
    block_size: int
    first: str = "diagonal"
    weighted: bool = False
    stopped: str = "completed"
    results: tuple[FitResult, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the fits, ready for JSON.

        Returns
        -------
        dict
            Strings, numbers and lists only.
        """
        return {
            **self._constants(),
            **{name: getattr(self, name).tolist() for name in _POINT},
            "baselines": {
                name: {"n_parameters": used.tolist(), "error": error.tolist()}
                for name, (used, error) in self.baselines.items()
            },
        }

    def to_dataframe(self) -> Any:
        """Return a table with one row for each point; needs pandas.

        Returns
        -------
        pandas.DataFrame
            The columns of the points, and two for each baseline, as in ``monarch_n_parameters`` and ``monarch_error``.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        columns = self._columns()
        return data_frame("ErrorCurve.to_dataframe", list(columns), zip(*columns.values(), strict=True))

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write everything but the fits to a file; `structmat.io.save` writes fits.

        Parameters
        ----------
        path : path-like
            The file, its suffix ``.json`` or ``.csv``. It appears complete or not at all.
        force : bool, default False
            Whether to replace an existing file.

        Raises
        ------
        ValueError
            If the suffix is neither.
        FileExistsError
            If the file exists and not `force`.
        OSError
            If the file cannot be written.
        """
        contents = {".json": lambda: json_bytes(self.to_dict()), ".csv": lambda: _to_csv(self)}
        write_table("ErrorCurve.save", path, contents, force=force)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ErrorCurve:
        """Read a curve that `save` wrote.

        Parameters
        ----------
        path : path-like
            The file, its suffix ``.json`` or ``.csv``.

        Returns
        -------
        ErrorCurve
            The same curve, without the fits.

        Raises
        ------
        ValueError
            If the suffix is neither, or the file holds no curve.
        OSError
            If the file cannot be read.
        """
        suffix = checked_suffix("ErrorCurve.load", path, (".json", ".csv"))
        content = Path(path).read_bytes()
        try:
            text = content.decode()
            return _from_dict(_dict_from_csv(text) if suffix == ".csv" else json.loads(text))
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError, csv.Error) as error:
            text = f"{os.fspath(path)} holds no error curve: {' '.join(str(error).split())}"
            raise ArgumentValueError("ErrorCurve.load", "path", text) from error

    def _constants(self) -> dict[str, Any]:
        rows, cols = self.shape
        return {
            "rows": rows,
            "cols": cols,
            "block_size": self.block_size,
            "first": self.first,
            "weighted": self.weighted,
            "stopped": self.stopped,
        }

    def _columns(self) -> dict[str, NDArray[Any]]:
        columns = {name: getattr(self, name) for name in _POINT}
        for name, (used, error) in self.baselines.items():
            columns |= {f"{name}_n_parameters": used, f"{name}_error": error}
        return columns

    def __repr__(self) -> str:
        rows, cols = self.shape
        kind = "weighted error" if self.weighted else "error"
        head = f"ErrorCurve of a {rows} x {cols} matrix, blocks of {self.block_size}, {self.first} first"
        if self.stopped != "completed":
            head += f", {self.stopped}"
        titles = ["factors", "parameters", "of dense", kind, "seconds", *self.baselines]
        widths = [max(len(title), 8) for title in titles]
        lines = [head, "  ".join(f"{title:>{width}}" for title, width in zip(titles, widths, strict=True))]
        for i, count in enumerate(self.n_parameters):
            cells = [
                f"{self.n_factors[i]}",
                f"{count:,}",
                f"{count / (rows * cols):.1%}",
                f"{self.error[i]:.4g}",
                f"{self.seconds[i]:.2f}",
                *(f"{error[i]:.4g}" for _, error in self.baselines.values()),
            ]
            lines.append("  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)))
        return "\n".join(lines)


def _to_csv(curve: ErrorCurve) -> bytes:
    """Return one line for each point, with what is the same for all of them repeated."""
    columns, constants = curve._columns(), curve._constants()
    points = zip(*(column.tolist() for column in columns.values()), strict=True)
    return csv_bytes([*columns, *constants], ([*point, *constants.values()] for point in points))


def _dict_from_csv(text: str) -> dict[str, Any]:
    points = list(csv.DictReader(io.StringIO(text, newline="")))
    first = points[0]
    if any(point[name] != first[name] for point in points for name in _CONSTANTS):
        raise ValueError(f"its lines differ in {', '.join(_CONSTANTS)}")
    content: dict[str, Any] = {name: first[name] for name in _CONSTANTS}
    content["weighted"] = bool(int(content["weighted"]))
    content |= {name: [kind(point[name]) for point in points] for name, kind in _POINT.items()}
    names = [name.removesuffix("_error") for name in first if name.endswith("_error")]
    content["baselines"] = {
        name: {
            "n_parameters": [int(point[f"{name}_n_parameters"]) for point in points],
            "error": [float(point[f"{name}_error"]) for point in points],
        }
        for name in names
    }
    return content


def _from_dict(content: dict[str, Any]) -> ErrorCurve:
    constants: dict[str, Any] = {name: kind(content[name]) for name, kind in _CONSTANTS.items()}
    points: dict[str, Any] = {name: np.array(content[name], dtype=kind) for name, kind in _POINT.items()}
    baselines = {
        name: (np.array(best["n_parameters"], dtype=int), np.array(best["error"], dtype=float))
        for name, best in content["baselines"].items()
    }
    columns = [*points.values(), *(column for best in baselines.values() for column in best)]
    if len({column.shape for column in columns}) != 1 or columns[0].ndim != 1:
        raise ValueError("its columns differ in length")
    shape = constants.pop("rows"), constants.pop("cols")
    return ErrorCurve(**points, baselines=baselines, shape=shape, **constants)
