"""Put one fault at a time into a copy of the package, and say which test catches it: ``python tests/faults/run.py``.

The faults are those of ``faults.toml``. For each of them the tests that are related to its file run first, by
`RELATED`, and end at the first failure. Only what they let through is tried by the rest of the quick selection and,
with ``--whole``, by the slow tests, the related ones first. The results are written to ``results.md`` beside this file.
A run that was interrupted goes on where it was, as long as neither the package nor its tests have changed.

A process that has imported the libraries forks one process for each run of tests, so that none of them imports these
again.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import importlib.util
import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import traceback
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
STATE = ROOT / "build" / "faults.jsonl"
"""What an interrupted run has found, one line for each fault; git ignores the folder."""
RESULTS = HERE / "results.md"

RELATED: dict[str, tuple[str, ...]] = {
    "structmat/_arrays/linear_algebra.py": ("**/test_hermitian.py", "**/test_logdet.py", "**/test_superfast.py"),
    "structmat/_files.py": ("torch/test_half_changes.py",),
    "structmat/cli/_app.py": ("cli/test_cli.py",),
    "structmat/_fourier": ("**/test_fourier.py", "**/test_prepared.py", "operators/test_laws.py"),
    "structmat/_fourier/blocks.py": ("**/test_block_toeplitz.py",),
    "structmat/_fourier/diagonals.py": ("**/test_trigonometric.py", "operators/test_spectral_multiplier.py"),
    "structmat/_fourier/multilevel.py": ("**/test_multilevel.py", "**/test_fourier.py"),
    "structmat/_fourier/trigonometric.py": ("**/test_trigonometric.py",),
    "structmat/_krylov": ("**/test_linear_systems.py", "**/test_toeplitz_solver.py", "**/test_block_toeplitz.py"),
    "structmat/_toeplitz_systems": (
        "**/test_toeplitz_solver.py",
        "**/test_toeplitz_triangular.py",
        "**/test_toeplitz_stacks.py",
    ),
    "structmat/_ways.py": ("linear_systems/test_ways.py",),
    "structmat/_toeplitz_systems/blocks": ("**/test_block_toeplitz.py",),
    "structmat/_toeplitz_systems/inverse.py": (
        "**/test_toeplitz_solver.py",
        "**/test_toeplitz_stacks.py",
        "**/test_toeplitz_triangular.py",
    ),
    "structmat/_toeplitz_systems/schur.py": ("**/test_toeplitz_cholesky.py",),
    "structmat/_toeplitz_systems/superfast/conditional.py": ("**/test_posterior.py",),
    "structmat/_toeplitz_systems/superfast/band.py": ("**/test_channels.py", "**/test_series.py", "**/test_logdet.py"),
    "structmat/linear_systems": ("**/test_linear_systems.py", "**/test_preconditioners.py"),
    "structmat/linear_systems/_bands.py": ("**/test_bands.py",),
    "structmat/linear_systems/_control_variate.py": ("**/test_logdet.py",),
    "structmat/linear_systems/_superfast.py": ("**/test_hermitian.py", "**/test_superfast.py", "**/test_channels.py"),
    "structmat/linear_systems/_lanczos.py": ("**/test_logdet.py",),
    "structmat/linear_systems/_logdet.py": ("**/test_logdet.py", "operators/test_kronecker.py"),
    "structmat/linear_systems/_logdet_derivatives.py": ("**/test_logdet.py",),
    "structmat/sampling.py": ("**/test_sampling.py",),
    "structmat/operators": ("operators/test_laws.py", "operators/test_algebra.py", "operators/test_closed_forms.py"),
    "structmat/_torch_rules.py": ("**/test_rules.py", "operators/test_torch.py", "**/test_linear_systems.py"),
    "structmat/_jax_rules.py": ("**/test_rules.py", "operators/test_jax.py", "**/test_linear_systems.py"),
    "structmat/fit/_alternation.py": ("fit/test_result.py", "fit/test_objective.py", "fit/test_starts_and_steps.py"),
    "structmat/fit/_levenberg_marquardt.py": ("fit/test_second_order.py", "fit/test_starts_and_steps.py"),
    "structmat/fit/_low_rank_product.py": ("fit/test_low_rank_start.py",),
    "structmat/fit/_low_rank_start.py": ("fit/test_low_rank_start.py",),
    "structmat/fit/_product_derivatives.py": ("fit/test_second_order.py",),
    "structmat/fit/_phase_objective.py": ("fit/test_phase_masks.py",),
    "structmat/fit": (
        "fit/test_objective.py",
        "fit/test_entry_weights.py",
        "fit/test_starts_and_steps.py",
        "fit/test_laws.py",
        "fit/test_recovery.py",
    ),
    "structmat/torch": (
        "torch/test_layer_laws.py",
        "torch/test_layers.py",
        "torch/test_autograd.py",
        "torch/test_adapter.py",
    ),
    "structmat/torch/_adapters": ("torch/test_bank.py",),
    "structmat/torch/_layers/linear.py": (
        "torch/test_linear_weights.py",
        "torch/test_layer_laws.py",
        "torch/test_layers.py",
        "peft/test_layer.py",
        "torch/test_autograd.py",
        "torch/test_adapter.py",
    ),
    "structmat/torch/_layers/attention.py": ("torch/test_attention.py", "peft/test_attention.py"),
    "structmat/torch/_layers/changed_call.py": ("torch/test_attention.py", "torch/test_experts.py"),
    "structmat/torch/_files": ("torch/test_low_bits.py", "torch/test_files.py"),
    "structmat/torch/_model": ("torch/test_half_changes.py", "torch/test_model.py"),
    "structmat/_long_convolutions": ("torch/test_convolutions.py",),
    "structmat/peft": (
        "peft/test_layer_laws.py",
        "peft/test_layer.py",
        "peft/test_model.py",
        "peft/test_parameters.py",
    ),
    "structmat/peft/_loading.py": ("peft/test_hotswap.py",),
    "structmat/io": ("**/test_files.py",),
    "structmat/_adapter_format.py": ("studies/test_checkpoints.py", "torch/test_files.py"),
    "structmat/studies": ("studies/test_engine.py", "studies/test_sweep.py", "studies/test_checkpoint*.py"),
    "structmat/studies/_checkpoint_files.py": ("studies/test_checkpoint_files.py", "studies/test_checkpoints.py"),
    "structmat/studies/_adapters.py": ("studies/test_checkpoint_experts.py", "studies/test_checkpoints.py"),
    "structmat/studies/_sweep.py": ("studies/test_sweep.py",),
}
"""For a file or a folder of the package, the tests of its subject: patterns of paths below ``tests``, in the order in
which they run. The longest entry that a path begins with holds for it."""

LIBRARIES = (
    "numpy", "scipy.fft", "scipy.linalg", "scipy.sparse.linalg", "hypothesis", "pytest",
    "array_api_compat", "array_api_strict", "ducc0", "matplotlib.figure", "pandas", "joblib", "cyclopts",
    "rich.console", "safetensors.numpy", "torch", "jax", "equinox", "lineax", "gpytorch", "transformers", "peft",
)  # fmt: skip
"""What the first process imports, as far as it is installed."""

SECONDS = {"related": 300, "others": 7200}
"""The processor time after which a run of tests counts as one that does not end: several times what it takes."""


@dataclass(frozen=True)
class Fault:
    """A text of one file that occurs there once, and what stands there instead."""

    title: str
    file: str
    says: str
    instead: str
    wrong_number: bool = True
    """Whether results of computations are wrong, rather than an error, a warning or a report."""

    def applied(self, text: str) -> str:
        """Return the text of the file with the fault."""
        count = text.count(self.says)
        if count != 1:
            raise ValueError(f"{self.title}: {self.file} must hold {self.says!r} once, and holds it {count} times")
        return text.replace(self.says, self.instead)


def faults() -> list[Fault]:
    """Return the faults of the list, with the paths of their files."""
    listed = tomllib.loads((HERE / "faults.toml").read_text("utf-8"))["fault"]
    return [Fault(**each | {"file": file_of(each["file"], each["says"])}) for each in listed]


def file_of(place: str, says: str) -> str:
    """Return the path of a file, or of that in a folder which holds a text."""
    if not (ROOT / place).is_dir():
        return place
    found = [path for path in (ROOT / place).rglob("*.py") if says in path.read_text("utf-8")]
    if len(found) != 1:
        raise ValueError(f"one file in {place} must hold {says!r}, and {len(found)} do")
    return found[0].relative_to(ROOT).as_posix()


def related(file: str) -> list[str]:
    """Return the paths of the test files that are related to a file of the package."""
    entries = [entry for entry in RELATED if file == entry or file.startswith(f"{entry}/")]
    if not entries:
        raise ValueError(f"RELATED has no entry for {file}")
    patterns = RELATED[max(entries, key=len)]
    found = {path: None for pattern in patterns for path in sorted((ROOT / "tests").glob(pattern))}
    return [path.relative_to(ROOT).as_posix() for path in found]


# Stages: which tests a fault is tried by, one after the other


@dataclass(frozen=True)
class Stage:
    """One run of pytest."""

    name: str
    arguments: tuple[str, ...]
    seconds: int


def stages(fault: Fault, options: argparse.Namespace) -> list[Stage]:
    """Return the runs of pytest that a fault is tried by, until one fails."""
    files = related(fault.file)
    more = shlex.split(options.pytest)
    # Not the test of the list itself: no fault can be put in where it is already.
    others = ["tests", "structmat", *(f"--ignore={file}" for file in ("tests/faults", *files))]
    chosen = []
    for name, marker in (("quick", "not slow"), ("slow", "slow")):
        if name == "slow" and not options.whole:
            break
        # Each related file by itself, as most faults end in the first one.
        chosen += [Stage(name, ("-m", marker, *more, file), SECONDS["related"]) for file in files]
        if not options.related:
            chosen.append(Stage(name, ("-m", marker, *more, *others), SECONDS["others"]))
    return chosen


# One run of pytest, in a process of its own


class Recorder:
    """A plugin of pytest that notes the test that runs and the first one that fails."""

    def __init__(self, notes: Path) -> None:
        self.notes = notes
        self.caught: str | None = None

    def pytest_sessionstart(self, session: Any) -> None:
        # How long tests take is no matter here, where others run beside them.
        for plugin in session.config.pluginmanager.get_plugins():
            if hasattr(plugin, "LIMIT") and hasattr(plugin, "processor_time"):
                plugin.LIMIT = float("inf")

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.notes.write_text(nodeid, "utf-8")

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and self.caught is None:
            self.caught = report.nodeid

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed and self.caught is None:
            self.caught = report.nodeid


@dataclass
class Copy:
    """A copy of the project, in which one process at a time runs tests."""

    folder: Path
    fault: Fault | None = None
    process: int | None = None

    def path(self, name: str) -> Path:
        """Return the path of a file beside the copy."""
        return self.folder.with_name(f"{self.folder.name}-{name}")

    def put(self, fault: Fault | None) -> None:
        """Take the fault that is there out of the copy, and put another one in."""
        for each, change in ((self.fault, False), (fault, True)):
            if each is None:
                continue
            file = self.folder / each.file
            text = (ROOT / each.file).read_text("utf-8")
            file.write_text(each.applied(text) if change else text, "utf-8")
            # It knows the file by its size and the second in which it was written, which may be the same.
            Path(importlib.util.cache_from_source(str(file))).unlink(missing_ok=True)
        self.fault = fault

    def start(self, arguments: Sequence[str], seconds: int) -> None:
        """Run pytest up to the first failure in a process of its own, which writes how it ended."""
        for name in ("notes", "ended"):
            self.path(name).unlink(missing_ok=True)
        self.process = os.fork()
        if self.process:
            return
        status = 70
        try:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            log = os.open(self.path("log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
            os.chdir(self.folder)
            sys.path.insert(0, str(self.folder))
            os.environ["PYTHONPATH"] = str(self.folder)
            status = self._pytest(["-x", *arguments])
        except BaseException:  # noqa: BLE001  # this process must end here, whatever happens
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _pytest(self, arguments: Sequence[str]) -> int:
        """Run pytest in this process; return its exit status."""
        import pytest

        warnings.resetwarnings()
        found = importlib.util.find_spec("structmat")
        if found is None or found.origin is None or not Path(found.origin).is_relative_to(self.folder):
            raise ImportError(f"the package would be imported from {found}")
        recorder = Recorder(self.path("notes"))
        imported = "ignore:Module already imported:pytest.PytestAssertRewriteWarning"
        options = ["-q", "-p", "no:cacheprovider", "--rootdir", str(self.folder), "-W", imported]
        status = pytest.main([*options, *arguments], plugins=[recorder])
        self.path("ended").write_text(json.dumps({"status": int(status), "caught": recorder.caught}), "utf-8")
        return int(status)

    def kill(self) -> None:
        """End the process, and those that it has started."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process, signal.SIGKILL)

    def outcome(self) -> str | None:
        """Return the test by which the run that has ended caught the fault; None if it has caught none."""
        ended = self.path("ended")
        log = self.path("log").read_text("utf-8", errors="replace")
        if not ended.exists():
            if self.path("notes").exists():  # it was killed for its processor time, or has crashed
                return f"{self.path('notes').read_text('utf-8')} (does not end)"
            raise RuntimeError(f"pytest did not start:\n{log[-3000:]}")
        found = json.loads(ended.read_text("utf-8"))
        if found["caught"] is not None:
            return str(found["caught"])
        if found["status"] in {0, 5}:  # all passed, or none was selected
            return None
        if "ImportError while loading conftest" in log:
            return "conftest.py (import)"
        raise RuntimeError(f"pytest ended with status {found['status']}:\n{log[-3000:]}")


# All runs


@dataclass
class Result:
    """How the tests have taken a fault."""

    title: str
    caught: str | None = None
    """The first test that failed."""
    stage: str = ""
    """The selection that it is in."""
    seconds: float = 0.0
    """The processor time of all runs."""


def digest() -> str:
    """Return a number for the state of the package, its tests and the list of faults."""
    made = hashlib.sha256()
    for name in project_files():
        if name.startswith(("structmat/", "tests/")) and ROOT / name != RESULTS:
            made.update(name.encode() + (ROOT / name).read_bytes())
    return made.hexdigest()[:16]


def project_files() -> list[str]:
    """Return the files that git does not ignore."""
    command = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [name for name in said.split("\0") if name and (ROOT / name).is_file()]


def copies(folder: Path, count: int) -> list[Copy]:
    """Return copies of the project, as a clone would be."""
    made = []
    for k in range(count):
        copy = folder / f"copy{k}"
        for name in project_files():
            target = copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
        made.append(Copy(copy))
    return made


def import_libraries() -> None:
    """Import what all runs import, as far as it is there; settings are read by some when they are imported."""
    settings = {
        "CI": "true", "HF_HUB_OFFLINE": "1", "JAX_PLATFORMS": "cpu", "MPLBACKEND": "agg", "NPROC": "1",
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    os.environ.update(settings)
    cache = STATE.with_name("faults-jax")  # what JAX compiles, as by tests/conftest.py
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    warnings.simplefilter("ignore")  # JAX warns of forks, which are safe until it has computed something
    for name in LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def ended(running: Iterable[Copy]) -> Iterator[tuple[Copy, float]]:
    """Yield the copies whose processes have ended, with their processor time."""
    for copy in running:
        assert copy.process is not None
        process, _, usage = os.wait4(copy.process, os.WNOHANG)
        if process:
            copy.kill()  # what it has left running
            copy.process = None
            yield copy, usage.ru_utime + usage.ru_stime


def run_all(chosen: list[Fault], known: dict[str, Result], options: argparse.Namespace, folder: Path) -> list[Result]:
    """Try the faults that are not known yet, several at a time, and note each result when it is there."""
    from rich.progress import Progress

    waiting = [(stages(fault, options), Result(fault.title), fault) for fault in chosen if fault.title not in known]
    results = dict(known)
    state = digest()
    STATE.parent.mkdir(exist_ok=True)
    free = copies(folder, min(options.workers, len(waiting)))
    running: dict[int, tuple[Copy, list[Stage], Result, Fault]] = {}
    with Progress() as progress, STATE.open("a", encoding="utf-8") as file:
        task = progress.add_task("faults", total=len(waiting))
        try:
            while waiting or running:
                while waiting and free:
                    left, result, fault = waiting.pop(0)
                    copy = free.pop()
                    copy.put(fault)
                    copy.start(left[0].arguments, left[0].seconds)
                    running[id(copy)] = copy, left, result, fault
                for copy, seconds in ended([each[0] for each in running.values()]):
                    _, left, result, fault = running.pop(id(copy))
                    free.append(copy)
                    result.seconds += seconds
                    result.caught, result.stage = copy.outcome(), left[0].name
                    if result.caught is None and left[1:]:
                        waiting.insert(0, (left[1:], result, fault))
                        continue
                    results[result.title] = result
                    file.write(json.dumps({"state": state, "whole": options.whole, **asdict(result)}) + "\n")
                    file.flush()
                    said = f"{result.stage:5} {result.caught}" if result.caught else "LIVES"
                    progress.console.print(
                        f"{result.seconds:6.1f} s  {fault.title}: {said}", markup=False, soft_wrap=True
                    )
                    progress.advance(task)
                time.sleep(0.05)
        finally:
            for copy, *_ in running.values():
                copy.kill()
    return [results[fault.title] for fault in chosen if fault.title in results]


def known_results(*, whole: bool) -> dict[str, Result]:
    """Return what an earlier run has found for the present package and tests, and need not be tried again."""
    known: dict[str, Result] = {}
    state = digest()
    for line in STATE.read_text("utf-8").splitlines() if STATE.exists() else []:
        found = json.loads(line)
        if found.pop("state") == state:
            was_whole = found.pop("whole")
            if found["caught"] or was_whole or not whole:
                known[found["title"]] = Result(**found)
    return known


def failing_without_a_fault(results: list[Result], folder: Path) -> list[str]:
    """Return those of the tests that have caught a fault which fail without one too."""
    nodes = sorted({result.caught.removesuffix(" (does not end)") for result in results if result.caught})
    (copy,) = copies(folder / "unchanged", 1)
    failing = []
    for node in nodes:  # one after the other, as pytest ends where it does not know one
        if node.endswith("(import)"):
            continue
        copy.start(["-m", "slow or not slow", node], SECONDS["related"])
        while not list(ended([copy])):
            time.sleep(0.05)
        if copy.outcome() is not None:
            failing.append(node)
    return failing


# The page of results


def machine() -> str:
    """Return what the results were found on."""
    import platform
    from importlib import metadata

    packages = [f"{name} {metadata.version(name)}" for name in ("numpy", "scipy", "torch", "jax", "peft", "pytest")]
    return f"{platform.machine()}, {os.cpu_count()} cores; Python {platform.python_version()}, {', '.join(packages)}"


def revision() -> str:
    """Return the revision of the package and its tests that the results are of, `-dirty` where files differ from it."""
    command = ("git", "describe", "--always", "--dirty")
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def share(part: int, whole: int) -> str:
    """Return a part of a whole, in per cent too."""
    return f"{part} of {whole} ({100 * part / whole:.0f} %)" if whole else "0 of 0"


def page(chosen: list[Fault], results: list[Result], failing: list[str], options: argparse.Namespace) -> str:
    """Return the results as a page."""
    of = {result.title: result for result in results}
    quick = sum(result.caught is not None and result.stage == "quick" for result in results)
    caught = sum(result.caught is not None for result in results)
    alive = [fault for fault in chosen if of[fault.title].caught is None]
    seconds = sum(result.seconds for result in results)
    command = shlex.join(["python", "tests/faults/run.py", *sys.argv[1:]])
    whole = f"the whole suite {share(caught, len(results))}" if options.whole else "the slow tests were not tried"
    lines = [
        "# Faults and the tests that catch them",
        "",
        f"`{command}`",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, revision {revision()}; {machine()}; {seconds:.0f} s of the processor.",
        "",
        f"The quick selection catches {share(quick, len(results))}; {whole}.",
        f"Of the faults that make a number wrong {sum(fault.wrong_number for fault in alive)} live.",
        *([f"These tests fail without a fault, too: {', '.join(failing)}."] if failing else []),
        "",
        "| file | fault | caught by | selection | s |",
        "|---|---|---|---|---:|",
    ]
    for fault in chosen:
        result = of[fault.title]
        test = "**lives**" if result.caught is None else f"`{result.caught.removeprefix('tests/').partition('[')[0]}`"
        file = fault.file.removeprefix("structmat/")
        lines.append(f"| `{file}` | {fault.title} | {test} | {result.stage} | {result.seconds:.0f} |")
    return "\n".join([*lines, ""])


def main() -> int:
    """Run what the command line says; the exit status is 1 where a fault lives, or a test fails without one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, help="how many faults are tried at a time")
    parser.add_argument("--whole", action="store_true", help="try what the quick selection lets through by slow tests")
    parser.add_argument("--related", action="store_true", help="leave out tests that RELATED does not name")
    parser.add_argument("--pytest", default="", metavar="OPTIONS", help="further options of pytest, as one text")
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="faults whose title or file holds one of these texts")
    parser.add_argument("--fresh", action="store_true", help="forget what earlier runs have found")
    options = parser.parse_args()
    if options.fresh:
        STATE.unlink(missing_ok=True)
    chosen = [
        fault
        for fault in faults()
        if not options.only or any(text in fault.title or text in fault.file for text in options.only)
    ]
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell lets what runs in the background ignore the first one
        signal.signal(number, signal.default_int_handler)
    import_libraries()
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        folder = Path(name).resolve()
        known = {} if options.only else known_results(whole=options.whole)
        results = run_all(chosen, known, options, folder)
        failing = failing_without_a_fault(results, folder)
    text = page(chosen, results, failing, options)
    if options.only:
        sys.stdout.write(text)
    else:
        RESULTS.write_text(text, "utf-8")
    return 1 if failing or any(result.caught is None for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
