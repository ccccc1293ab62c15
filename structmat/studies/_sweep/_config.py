"""What a sweep is to do, checked: from a TOML file, from options of the command, or from Python."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from structmat._arrays.checks import integer, non_negative, one_of, side_of_blocks
from structmat._arrays.errors import ArgumentError, ArgumentTypeError, ArgumentValueError
from structmat.studies._sweep._methods import METHODS

if TYPE_CHECKING:
    from structmat._arrays.typing import ArrayLike

__all__ = ["MatrixSource", "SweepConfig", "example_config", "read_config"]

_OWNER, _SOURCE = "SweepConfig", "MatrixSource"
_SEEDS = 1 << 63
"""Integers of SQLite are smaller."""
_MOST_VALUES = 100_000
"""Of one key, at most."""

_EXAMPLE = """\
# What `structmat sweep study.toml --out study` is to do. Paths are relative to this file.

n_factors = [3, 5, 9]           # numbers of factors of the CDD products
block_sizes = ["min"]           # sides of the circulant blocks; "min" is the smaller side of each matrix
methods = ["cdd", "truncated-svd", "block-circulant", "sparse-fourier", "monarch"]
seeds = [0]                     # of the CDD fits; the other methods have closed forms
# max_iter = 5000               # the most iterations from one starting point
# restarts = 4                  # random starting points; by default by size
# growth = false                # no fits of fewer factors to grow from: less than half the time
# time_limit = 60               # seconds for one fit; results then depend on the machine

[[sources]]                     # every matrix in some files
files = ["changes/*.npy"]       # .npy, .npz or .safetensors

# [[sources]]                   # the changes from one checkpoint to another
# base = "base.safetensors"
# tuned = "tuned.safetensors"
# targets = 'attention.*(query|value)$'  # regular expression, found anywhere in the names
# name = "minilm"               # put before the names of the layers, where sources have the same ones

# [[sources]]                   # what a layer's outputs lose: weighted by the second moments of its inputs
# files = ["changes/l3_value.npy"]
# input_second_moment = "changes/l3_value_S.npy"
"""


def example_config() -> str:
    """Return an example configuration, in TOML.

    Returns
    -------
    str
        With all keys, most of them as comments.

    Examples
    --------
    >>> import tomllib
    >>> from structmat.studies import example_config
    >>> tomllib.loads(example_config())["n_factors"]
    [3, 5, 9]
    """
    return _EXAMPLE


@dataclass(frozen=True, slots=True)
class MatrixSource:
    r"""Where matrices come from: files, or the changes between two checkpoints.

    Attributes
    ----------
    files : tuple of str
        Files ``.npy``, ``.npz`` or ``.safetensors``, or patterns such as ``"changes/*.npy"``.
    base, tuned : str or None
        Two checkpoints instead; every matrix ``tuned - base`` is one layer.
    targets : str or None
        Regular expression that must be found in the name of an array, of a tensor without its ending ``.weight``, or of
        a file with one array, without its suffix. By default all matrices are taken.
    name : str
        Put before the names of the layers, with a slash.
    input_second_moment : str or None
        File with the second moments of the inputs, for all matrices of this source; errors are weighted ones then.

    Examples
    --------
    >>> from structmat.studies import MatrixSource
    >>> MatrixSource(base="base.safetensors", tuned="tuned.safetensors", targets="query$").targets
    'query$'
    """

    files: Sequence[str] = ()
    base: str | None = None
    tuned: str | None = None
    targets: str | None = None
    name: str = ""
    input_second_moment: str | None = None

    def __post_init__(self) -> None:
        files = (self.files,) if isinstance(self.files, (str, os.PathLike)) else self.files
        object.__setattr__(self, "files", _listed(files, "files", _text, _SOURCE))
        for key in ("base", "tuned", "targets", "input_second_moment"):
            if getattr(self, key) is not None:
                object.__setattr__(self, key, _text(getattr(self, key), key))
        object.__setattr__(self, "name", _text(self.name, "name"))
        if bool(self.files) == (self.base is not None or self.tuned is not None):
            raise ArgumentValueError(_SOURCE, None, "give either files, or base and tuned")
        if (self.base is None) != (self.tuned is None):
            raise ArgumentValueError(_SOURCE, "base" if self.base is None else "tuned", "is missing")
        if self.targets is not None:
            try:
                re.compile(self.targets)
            except re.error as error:
                text = f"must be a regular expression, got {self.targets!r}: {error}"
                raise ArgumentValueError(_SOURCE, "targets", text) from error

    def _beside(self, folder: Path) -> MatrixSource:
        """Return the source with paths relative to a folder."""
        placed = {
            key: str(folder / path) for key in ("base", "tuned", "input_second_moment") if (path := getattr(self, key))
        }
        return replace(self, files=tuple(str(folder / file) for file in self.files), **placed)


@dataclass(frozen=True, slots=True)
class SweepConfig:
    """Settings of a sweep, which applies every method with every setting to every matrix.

    Attributes
    ----------
    sources : sequence of MatrixSource, or mapping of str to array_like
        The matrices: from files, or by name.
    n_factors : tuple of int
        Numbers of factors of the CDD products.
    block_sizes : tuple of int, "min" or "toeplitz"
        Sides of the circulant blocks; ``"min"`` is the smaller side of each matrix, ``"toeplitz"`` the sum of both
        sides minus one.
    methods : tuple of str
        ``"cdd"``, and closed-form members of other families with at most as many parameters: ``"truncated-svd"``,
        ``"block-circulant"``, ``"sparse-fourier"``, ``"monarch"``. All by default.
    seeds : tuple of int
        Seeds of the CDD fits, one fit for each.
    max_iter : int
        Largest number of iterations from one starting point.
    restarts : int or None
        Random starting points, by default by size.
    growth : bool
        Whether every fit also starts from fits with fewer factors; without this, a fit with many factors takes less
        than half the time.
    time_limit : float or None
        Seconds for one fit. Its result then depends on the machine.

    See Also
    --------
    read_config : Reads it from a file.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.studies import SweepConfig
    >>> SweepConfig({"identity": np.eye(4)}, n_factors=[3, 5]).block_sizes
    ('min',)
    >>> SweepConfig({"identity": np.eye(4)}, methods=["monark"])
    Traceback (most recent call last):
        ...
    structmat.ArgumentValueError: SweepConfig: methods must be one of "cdd", "truncated-svd", ..., got 'monark'
    """

    sources: Sequence[MatrixSource] | Mapping[str, ArrayLike]
    n_factors: Sequence[int] = (3,)
    block_sizes: Sequence[int | Literal["min", "toeplitz"]] = ("min",)
    methods: Sequence[str] = tuple(METHODS)
    seeds: Sequence[int] = (0,)
    max_iter: int = 5000
    restarts: int | None = None
    growth: bool = True
    time_limit: float | None = None

    def __post_init__(self) -> None:
        checked: dict[str, Any] = {
            "n_factors": _listed(self.n_factors, "n_factors", _whole),
            "block_sizes": _listed(self.block_sizes, "block_sizes", _block_size),
            "methods": _listed(self.methods, "methods", _method),
            "seeds": _listed(self.seeds, "seeds", _seed),
            "max_iter": _whole(self.max_iter, "max_iter"),
            "restarts": None if self.restarts is None else _whole(self.restarts, "restarts", 0),
            "growth": self.growth,
            "time_limit": self.time_limit,
            "sources": self.sources,
        }
        if not isinstance(self.growth, bool):
            raise ArgumentTypeError(_OWNER, "growth", f"must be true or false, got {self.growth!r}")
        if self.time_limit is not None:
            checked["time_limit"] = non_negative(self.time_limit, _OWNER, "time_limit")
        if not isinstance(self.sources, Mapping):
            checked["sources"] = _listed(self.sources, "sources", _source)
        for key in ("n_factors", "block_sizes", "methods", "seeds", "sources"):
            if not checked[key]:
                raise ArgumentValueError(_OWNER, key, "must not be empty")
        for key, value in checked.items():
            object.__setattr__(self, key, value)


def read_config(path: str | os.PathLike[str], **changes: Any) -> SweepConfig:
    r"""Read the configuration of a sweep from a TOML file.

    Parameters
    ----------
    path : path-like
        The file; ``structmat sweep --example`` prints one. Paths in it are relative to its folder.
    **changes
        Values that replace those of the file, by key.

    Returns
    -------
    SweepConfig
        The configuration.

    Raises
    ------
    ValueError
        If the file is not TOML, or a key or value is not allowed; the text names file, key and what is allowed.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from structmat.studies import read_config
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "study.toml")
    ...     _ = path.write_text('n_factors = [3, 5]\n[[sources]]\nfiles = ["*.npy"]')
    ...     read_config(path, seeds=[1]).n_factors
    (3, 5)
    """
    content = Path(path).read_bytes()
    try:
        given = tomllib.loads(content.decode())
        if "sources" not in changes:
            given["sources"] = [source._beside(Path(path).parent) for source in _sources(given.get("sources", []))]
        values = {**given, **changes}
        _refuse_unknown(values, SweepConfig)
        return SweepConfig(**values)
    except ArgumentError as error:
        if error.argument in changes:
            raise
        # The file is to blame, not its reader.
        raise ArgumentValueError(os.fspath(path), error.argument, error.text) from error
    except (ValueError, RecursionError) as error:  # of tomllib and decode
        raise ArgumentValueError(os.fspath(path), None, " ".join(str(error).split())) from error


def _sources(items: Any) -> list[MatrixSource]:
    if not isinstance(items, list) or not all(isinstance(item, Mapping) for item in items):
        raise ArgumentValueError(_OWNER, "sources", "must be tables, each beginning with [[sources]]")
    for item in items:
        _refuse_unknown(item, MatrixSource)
    return [MatrixSource(**item) for item in items]


def _refuse_unknown(values: Mapping[str, Any], kind: type) -> None:
    names = [entry.name for entry in fields(kind)]
    for key in values:
        if key not in names:
            near = difflib.get_close_matches(key, names, 1, cutoff=0.5)
            meant = f"; did you mean {near[0]}?" if near else ";"
            table = " in a table of sources" if kind is MatrixSource else ""
            text = f"unknown key {key}{table}{meant} allowed are {', '.join(names)}"
            raise ArgumentValueError(kind.__name__, None, text)


def _listed(values: Any, key: str, check: Callable[[Any, str], Any], owner: str = _OWNER) -> tuple[Any, ...]:
    """Return checked entries, each once, in their order."""
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise ArgumentTypeError(owner, key, f"must be a list, got {values!r}")
    given = list(islice(values, _MOST_VALUES + 1))
    if len(given) > _MOST_VALUES:
        raise ArgumentValueError(owner, key, f"must have at most {_MOST_VALUES:,} values, got more")
    return tuple(dict.fromkeys(check(value, key) for value in given))


def _source(value: Any, key: str) -> MatrixSource:
    if not isinstance(value, MatrixSource):
        raise ArgumentTypeError(_OWNER, key, f"must be MatrixSource objects, or matrices by name, got {value!r}")
    return value


def _text(value: Any, key: str) -> str:
    if not isinstance(value, (str, os.PathLike)):
        raise ArgumentTypeError(_SOURCE, key, f"must be text, got {value!r}")
    return os.fspath(value)


def _whole(value: Any, key: str, least: int = 1) -> int:
    if isinstance(value, bool):
        raise ArgumentTypeError(_OWNER, key, f"must be an integer, got {value!r}")
    return integer(value, _OWNER, key, least)


def _seed(value: Any, key: str) -> int:
    number = _whole(value, key, 0)
    if number >= _SEEDS:
        raise ArgumentValueError(_OWNER, key, f"must be below 2**63, the end of the integers of a table, got {number}")
    return number


def _block_size(value: Any, key: str) -> int | str:
    return side_of_blocks(value, _OWNER, key) if isinstance(value, str) else _whole(value, key)


def _method(value: Any, key: str) -> str:
    return one_of(value, _OWNER, key, METHODS)
