"""What the benchmarks share: timing in turns, the engine, the machine and its versions, tables and their pages."""

from __future__ import annotations

import argparse
import csv
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

from structmat._fourier import engines as fourier_engines

Times = dict[str, list[float]]

ENGINES = {
    "scipy": "SciPy's pocketfft, as after `pip install structmat`",
    "ducc0": "ducc0 beside SciPy's pocketfft, as after `pip install structmat[fast]`",
}
BOTH = f"{ENGINES['scipy']}; where a table says `fast`, {ENGINES['ducc0']}"
"""What `finish` is told by scripts that use both."""
_installed = fourier_engines.ducc


def parser(
    doc: str | None, quick: str = "tiny cases, to see that it runs", *, out: bool = True
) -> argparse.ArgumentParser:
    """Return a parser with the description of a script, and its options --quick and, unless it only prints, --out."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help=quick)
    if out:
        made.add_argument("--out", type=Path, metavar="FOLDER", help="where to write the results")
    return made


def begin(made: argparse.ArgumentParser) -> argparse.Namespace:
    """Return the options of a script that uses one engine all the time: that of the default install, or of --engine."""
    made.add_argument(
        "--engine", choices=ENGINES, default="scipy", help="what transforms NumPy arrays; ducc0 is of the extra `fast`"
    )
    options = made.parse_args()
    fourier_engines.ducc = _ducc(options.engine)
    return options


@contextmanager
def changed(module: Any, **names: Any) -> Iterator[None]:
    """Give names of a module other values inside the block."""
    before = {name: getattr(module, name) for name in names}
    vars(module).update(names)
    try:
        yield
    finally:
        vars(module).update(before)


@contextmanager
def engine(name: str) -> Iterator[None]:
    """Let products of NumPy arrays use "scipy" alone inside the block, as the default install does, or "ducc0" too."""
    with changed(fourier_engines, ducc=_ducc(name)):
        yield


def ducc0_is_installed() -> bool:
    return _installed() is not None


def _ducc(name: str) -> Callable[[], Any]:
    if name == "ducc0" and not ducc0_is_installed():
        raise SystemExit("install structmat[fast] to use ducc0")
    return _installed if name == "ducc0" else lambda: None


def in_turns(
    functions: dict[str, Callable[[], object]],
    rounds: int = 15,
    sample: float = 2e-3,
    limit: float = 1.0,
) -> Times:
    """Return the seconds per call of functions that take turns, in an order that changes from round to round.

    A sample repeats a short call for about `sample` seconds. A function that would take more than `limit` seconds in
    all takes part in fewer rounds, three at least. A busy machine disturbs the processor's time of one thread least.
    """
    repeats, turns = {}, {}
    for name, function in functions.items():
        function()  # caches, compilation, plans
        begun = time.process_time()
        function()
        once = max(time.process_time() - begun, 1e-7)
        repeats[name] = max(1, round(sample / once))
        turns[name] = min(rounds, max(3, int(limit / (once * repeats[name]))))
    seen: Times = {name: [] for name in functions}
    names = list(functions)
    for k in range(rounds):
        names.append(names.pop(0))
        for name in names if k % 2 else reversed(names):
            if k >= turns[name]:
                continue
            function, count = functions[name], range(repeats[name])
            begun = time.process_time()
            for _ in count:
                function()
            seen[name].append((time.process_time() - begun) / len(count))
    return seen


def ratio(times: Times, name: str, other: str) -> float:
    """Return the median over the rounds of one function's time over that of another."""
    return median(a / b for a, b in zip(times[name], times[other], strict=False))


def normal(rng: np.random.Generator, *shape: int, real: bool = False) -> np.ndarray:
    return rng.standard_normal(shape) if real else rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def with_noise(rng: np.random.Generator, W: np.ndarray, noise: float, *, real: bool = False) -> np.ndarray:
    """Return a matrix with normal entries added, whose norm is that of the matrix times the noise."""
    added = normal(rng, *W.shape, real=real)
    return W + noise * np.linalg.norm(W) / np.linalg.norm(added) * added


def circulant_data(n: int, batch: int, dtype: str) -> tuple[Any, Any]:
    """Return the first column of a well-conditioned circulant and vectors, as NumPy arrays."""
    rng = np.random.default_rng(n)
    c, x = (rng.standard_normal((*shape, 2)) for shape in ((n,), (n,) if batch == 1 else (batch, n)))
    c[0] += 5 * n**0.5
    field = complex if dtype.startswith("complex") else float
    return c.view(field)[..., 0].astype(dtype), x.view(field)[..., 0].astype(dtype)


def fault(y: Any, expected: Any, dtype: str) -> str:
    """Return what is wrong with a result, or that its precision is another than asked for; nothing if all is right."""
    if y.shape != expected.shape:
        return f"wrong: shape {y.shape}"
    error = float(np.linalg.norm(y - expected) / np.linalg.norm(expected))
    if not error < 1e3 * np.finfo(dtype).eps:
        return f"wrong: relative error {error:.1e}"
    return "" if y.dtype == dtype else f"returns {y.dtype}"


def vectors(count: int) -> str:
    return "one vector" if count == 1 else f"{count} vectors"


def commit() -> str:
    """Return the commit that the code of a run is of, with "-dirty" behind it where files differ from it.

    It is empty where the folder is no repository, or one without a commit, as a copy of the files is.
    """
    describe = [
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--abbrev=12",
        "--dirty",
        "--exclude=*",
    ]
    return subprocess.run(describe, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603


def processor() -> str:
    """Return the processor's name and number of cores."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        facts = dict(line.split(":", 1) for line in info.read_text().split("\n\n")[0].splitlines() if ":" in line)
        facts = {key.strip(): value.strip() for key, value in facts.items()}
        name = facts.get("model name", name)
        if "cpu family" in facts:
            name += f" (family {facts['cpu family']}, model {facts.get('model', '?')})"
    return f"{name}, {os.cpu_count()} cores, {platform.machine()}"


def machine(*packages: str) -> str:
    """Return where a benchmark ran: processor, versions, the BLAS libraries that are loaded, and their kernels."""
    found = [f"Python {platform.python_version()}"]
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} not installed")
    blas = {
        f"{pool['internal_api']} {pool['version']}, kernels for {pool.get('architecture', 'an unnamed processor')}, "
        f"{pool['num_threads']} thread{'s' * (pool['num_threads'] != 1)}"
        for pool in threadpool_info()
        if pool["user_api"] == "blas"
    }
    return f"{processor()}; {', '.join(found)}; BLAS: {'; '.join(sorted(blas)) or 'none loaded'}."


def table(header: Sequence[object], rows: Iterable[Sequence[object]], left: int = 1) -> str:
    """Return a table in Markdown, whose first `left` columns hold text and the others numbers."""
    marks = ["---" if i < left else "---:" for i in range(len(header))]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in (header, marks, *rows))


def shown(rows: Iterable[Sequence[object]]) -> list[Sequence[object]]:
    """Return rows, each of which is printed as soon as it is there."""
    kept = []
    for row in rows:
        kept.append(row)
        print(*row, sep="  ", flush=True)
    return kept


def command() -> str:
    """Return the command that was given, without the folder of the results."""
    made = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    made.add_argument("--out")
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *made.parse_known_args()[1]])


PAGES = {
    "products": "Products",
    "toeplitz": "Toeplitz matrices",
    "block_toeplitz": "Block Toeplitz matrices",
    "likelihoods": "Likelihoods",
    "kronecker": "Kronecker products and sums",
    "edges": "Grids with edges",
    "scipy_vocabulary": "SciPy's functions",
    "fits": "Fits",
    "exact_products": "Exact products",
    "phase_masks": "Products of phase masks",
    "adapter_costs": "Time and memory of adapters",
    "adapter_accuracy": "Accuracy of adapters",
    "generation": "Adapters of a decoder that generates",
    "convolutions": "Long convolutions",
    "laws_of_others": "Laws that operators of other libraries obey",
}
"""The pages of results, with their titles."""


def finish(
    out: Path | None,
    page: str,
    title: str,
    *parts: str,
    packages: Sequence[str] = ("structmat", "numpy", "scipy"),
    engines: str | None = None,
    data: str | None = None,
    header: Sequence[str] = (),
    rows: Iterable[Sequence[object]] = (),
) -> None:
    """Print a section of title, command, engine, date, revision, machine and parts, and write it into a page.

    All results are written here. A page has a section for each script, or for each table that can be made alone. One
    that is written again takes the place of the one of the same title, and the others stay. `engines` is for scripts
    that use more than one. Where all is of the extra `fast`, titles and the names of data files say so. With a name for
    `data`, rows and their header are written as CSV.
    """
    ending = ""
    if engines is None and fourier_engines.ducc():
        engines, title, ending = ENGINES["ducc0"], f"{title}, with `fast`", "_fast"
    load = f"load {os.getloadavg()[1]:.1f} in the last five minutes; " if hasattr(os, "getloadavg") else ""
    facts = f"{datetime.now(UTC):%Y-%m-%d}; revision {commit() or 'not recorded'}; {load}{machine(*packages)}"
    below = [re.sub(r"^(##+ )", r"#\1", part, flags=re.MULTILINE) for part in parts]
    text = "\n\n".join((f"## {title}", f"`{command()}`", f"Engine: {engines or ENGINES['scipy']}.", facts, *below))
    print(text)
    if out is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    with_section(out / f"{page}.md", text)
    if data is not None:
        with (out / f"{data}{ending}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *rows])


def with_section(page: Path, text: str) -> None:
    """Write a section into a page, in the place of the one of the same title if there is one."""
    there = page.read_text(encoding="utf-8") if page.exists() else f"# {PAGES[page.stem]}"
    head, *sections = re.split(r"^(?=## )", there, flags=re.MULTILINE)
    of_title = {section.partition("\n")[0]: section for section in [*sections, text]}
    page.write_text("\n\n".join(part.strip() for part in (head, *of_title.values())) + "\n", encoding="utf-8")
