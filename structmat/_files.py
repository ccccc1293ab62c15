"""What everything that reads or writes files shares: complete or no files, tables as text, and names made safe.

Names of layers and files come from outside: they may hold what commands a terminal, and be of any length.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import platform
import re
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from structmat._errors import ArgumentTypeError

__all__ = [
    "DTYPES",
    "TEMPORARY",
    "atomic_write",
    "atomic_write_together",
    "check_output",
    "counted",
    "data_frame",
    "first_names",
    "latex_table",
    "natural_key",
    "one_line",
    "open_safetensors",
    "printable",
    "require_regular",
    "require_safetensors",
    "shown_error",
    "unwrapped",
    "versions",
]

DTYPES = {f"F{bits}": f"float{bits}" for bits in (64, 32, 16)}
DTYPES |= {"BF16": "bfloat16", "BOOL": "bool", "C64": "complex64"}
DTYPES |= {f"{kind}{bits}": f"{name}{bits}" for kind, name in (("I", "int"), ("U", "uint")) for bits in (64, 32, 16, 8)}
"""Names of dtypes by their codes in safetensors; it has others, which NumPy does not have."""
TEMPORARY = f".{16 * '[0-9a-f]'}.tmp"
"""Pattern of the files that `atomic_write` leaves where the process is killed."""
_WRAPPERS = re.compile(r"(?:^|\.)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?=\.|$)")
"""Parts of paths that `torch.compile`, FSDP and checkpoints of activations add."""


def check_output(path: str | os.PathLike[str], *, force: bool = False) -> Path:
    """Return a file, links followed, if it can be written; an existing one only with `force`."""
    target = Path(os.path.realpath(path))

    def refuse(number: int, text: str) -> OSError:
        return OSError(number, text, os.fspath(path))

    if not target.parent.is_dir():
        raise refuse(errno.ENOENT, f"its folder {target.parent} does not exist")
    if target.exists():
        if not force:
            raise refuse(errno.EEXIST, "the file exists, and force is not given")
        if not target.is_file():
            raise refuse(errno.EISDIR if target.is_dir() else errno.EINVAL, "not a regular file")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise refuse(errno.EACCES, f"its folder {target.parent} is not writable")
    return target


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], *, force: bool = False) -> Iterator[BinaryIO]:
    """Open a binary file for writing that appears only when it is complete.

    The bytes go to a temporary file in the same folder, are synced to the disk, and the file is renamed. On any
    failure, Ctrl-C included, the temporary file is removed and an existing file is unchanged.
    """
    target = check_output(path, force=force)
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        # Unlike `tempfile`, this lets the umask decide on the permissions, as for any new file.
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:  # noqa: PTH123
            yield file
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        temporary.replace(target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno or errno.EIO, error.strerror or str(error), os.fspath(path)) from error
        raise


def atomic_write_together(contents: Mapping[Path, bytes], *, force: bool = False) -> None:
    """Write files that belong together, all or none of them; those with the same content already are left alone.

    On any failure, Ctrl-C included, existing files are unchanged. Where several are replaced, the last one is taken
    away first and comes last: a process that is killed meanwhile leaves a folder without it, and no mixture.
    """
    targets = {check_output(path, force=force): content for path, content in contents.items()}
    targets = {path: new for path, new in targets.items() if not (path.exists() and path.read_bytes() == new)}
    complete = {path: path.with_name(f".{secrets.token_hex(8)}.tmp") for path in targets}
    former = {path: path.with_name(f".{secrets.token_hex(8)}.tmp") for path in targets if path.exists()}
    try:
        for path, content in targets.items():
            with atomic_write(complete[path]) as file:
                file.write(content)
            if path in former:
                complete[path].chmod(stat.S_IMODE(path.stat().st_mode))
        if len(targets) > 1:
            for path in reversed(former):
                path.replace(former[path])
        for path in targets:
            complete[path].replace(path)
    except BaseException:
        for path, place in former.items():
            if place.exists():
                place.replace(path)
        # A new file stands in its place where its complete one is no longer beside it.
        new = [path for path in targets if path not in former and not complete[path].exists()]
        _remove((*new, *complete.values()))
        raise
    _remove(former.values())


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def require_regular(path: str | os.PathLike[str], owner: str) -> None:
    """Raise where `path` is no path, or leads to a pipe or a device, which would be waited for."""
    if not isinstance(path, (str, os.PathLike)):
        raise ArgumentTypeError(owner, "path", f"must be a path, got {path!r}")
    mode = Path(path).stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # a folder is told when it is opened
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))


def require_safetensors() -> None:
    """Raise where the libraries are missing that safetensors files are read and written with."""
    try:
        import ml_dtypes  # noqa: F401, PLC0415  # the dtype bfloat16 of NumPy
        import safetensors  # noqa: F401, PLC0415  # an extra
    except ModuleNotFoundError as error:
        raise ImportError('safetensors files need the extra "files": pip install "structmat[files]"') from error


@contextlib.contextmanager
def open_safetensors(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Open a safetensors file by the library's own reader, which checks its header; nothing else is read yet.

    Its arrays are those of NumPy, bfloat16 included. A file that is replaced meanwhile is still read to its end.
    """
    require_safetensors()
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415  # an extra

    try:
        opened = safe_open(os.fspath(path), framework="np")
    except (SafetensorError, ValueError, MemoryError) as error:
        raise ValueError(f"{path} is no complete safetensors file: {one_line(error)}") from error
    with opened:
        yield opened


def data_frame(owner: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Any:
    """Return a table of pandas; `owner` names the caller where that is missing."""
    try:
        pandas = importlib.import_module("pandas")
    except ModuleNotFoundError as error:
        raise ImportError(f"{owner} needs pandas: pip install pandas") from error
    return pandas.DataFrame(list(rows), columns=list(columns))


def versions() -> dict[str, str]:
    """Return the versions of what computes results, for the files that keep them."""
    return {"structmat": metadata.version("structmat"), "python": platform.python_version(), "numpy": np.__version__}


def latex_table(titles: Sequence[str], lines: Iterable[Sequence[str]], comments: Sequence[str] = ()) -> str:
    """Return a table in LaTeX with the rules of booktabs; versions and comments stand in comments at its head."""
    made_by = ", ".join(f"{name} {version}" for name, version in versions().items())
    head = [f"% {one_line(printable(text))}" for text in (made_by, "needs \\usepackage{booktabs}", *comments)]
    rows = [" & ".join(map(_latex, line)) + r" \\" for line in (titles, *lines)]
    body = [rf"\begin{{tabular}}{{{'r' * len(titles)}}}", r"\toprule", rows[0], r"\midrule", *rows[1:]]
    return "\n".join([*head, *body, r"\bottomrule", r"\end{tabular}", ""])


def _latex(text: str) -> str:
    """Return a text as LaTeX prints it literally, and powers of ten as such."""
    if found := re.fullmatch(r"(-?[\d.]+)e([-+]\d+)", text):
        return rf"${found[1]} \times 10^{{{int(found[2])}}}$"
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "-": "-"}
    special |= {c: f"\\{c}" for c in "&%$#_{}"}
    return "--" if text == "-" else "".join(special.get(c, c) for c in printable(text))


def one_line(error: BaseException | str) -> str:
    """Return the text of an error or a warning on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def printable(text: str) -> str:
    r"""Return a text with what is not printed as escapes: ``\x1b`` would command a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def counted(number: int, noun: str) -> str:
    """Return a number and what it counts: ``1 layer``, ``1,024 layers``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def shown_error(n_parameters: float, error: float, shown: Callable[[float], str] = "{:.4g}".format) -> str:
    """Return the error of a best member of a family as a text.

    It is a dash if that is the zero matrix for want of a member with so few parameters.
    """
    return shown(error) if n_parameters or not error else "-"


def first_names(names: Sequence[str], most: int = 8) -> str:
    """Return the first of some names for a message, and dots where there are more."""
    return ", ".join([*names[:most], *(["..."] if len(names) > most else [])])


def natural_key(name: str) -> list[tuple[int, str]]:
    """Return a key to sort names by: ``layer.2`` comes before ``layer.10``."""
    return [(int(part) if part.isdecimal() else -1, part) for part in re.split(r"(\d+)", name)]


def unwrapped(name: str) -> str:
    """Return the path of a module or the name of a weight without what wrapping classes add to it."""
    return _WRAPPERS.sub("", name).removeprefix(".")
