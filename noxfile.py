#!/usr/bin/env -S uv run --script
# /// script
# dependencies = ["nox>=2025.2.9"]
# ///
"""What `.ci/run` does not do: other versions of Python and of libraries, other tools, benchmarks, the package."""

import shutil
import tarfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "venv"


@nox.session(python=["3.11", "3.12", "3.13", "3.14"], default=True)
def tests(session: nox.Session) -> None:
    """Run the tests and the doctests of the modules."""
    session.install("-e", ".[test]")
    session.run("pytest", *(session.posargs or ["-n", "2"]))


@nox.session(default=False)
def benchmarks(session: nox.Session) -> None:
    """Run each benchmark once, tiny, to see that it runs; what it measures then means nothing."""
    session.install("-e", ".[bench,examples,test]")
    for script in sorted(Path("benchmarks").glob("[a-z]*.py")):
        session.run("python", "-W", "ignore", str(script), "--quick", silent=True, env={"OMP_NUM_THREADS": "1"})


@nox.session(python="3.11", venv_backend="uv", default=False)
def lowest(session: nox.Session) -> None:
    """Run the tests with the lowest versions that pyproject.toml allows for what it names."""
    session.install("--resolution=lowest-direct", "-e", ".[test]")
    # Old versions use what newer ones of their own dependencies deprecate; that is no error here.
    quiet = ("-W", "default", "-W", "ignore::DeprecationWarning")
    session.run("pytest", *quiet, *(session.posargs or ["-n", "2", "tests"]))


@nox.session(python="3.13", default=False)
def prereleases(session: nox.Session) -> None:
    """Run the tests with pre-releases of all that structmat needs: what the next versions will break."""
    session.install("--pre", "--upgrade", "-e", ".[test]")
    session.run("pytest", "-W", "default", *(session.posargs or ["-n", "2", "tests"]))  # new versions deprecate


@nox.session(python="3.11", default=False)
def ecosystem(session: nox.Session) -> None:
    """Train, save, load and use by other tools, as the guide says; write the table of versions that work."""
    session.install("-e", ".[ecosystem]")
    environment = {"STRUCTMAT_ECOSYSTEM": "1" if session.posargs else "write"}
    files = ["tests/ecosystem", "tests/torch/test_tools.py", "tests/peft/test_tools.py"]
    # Tools warn about each other; that is no error here.
    session.run("pytest", "-W", "default", *(session.posargs or files), env=environment)


@nox.session(default=False)
def package(session: nox.Session) -> None:
    """Build sdist and wheel into dist/, check both, and run the tests on the wheel where the sources are not."""
    dist = Path("dist").resolve()
    shutil.rmtree(dist, ignore_errors=True)
    session.install("build", "cffconvert", "check-wheel-contents", "twine")
    session.run("python", ".ci/release_files.py", "--check")
    session.run("cffconvert", "--validate")
    session.run("python", "-m", "build", "--outdir", str(dist))
    (sdist,), (wheel,) = dist.glob("*.tar.gz"), dist.glob("*.whl")
    session.run("twine", "check", "--strict", str(sdist), str(wheel))
    session.run("check-wheel-contents", str(wheel))
    session.install(f"{wheel}[test]")
    empty = Path(session.create_tmp()).resolve()
    shutil.rmtree(empty)
    with tarfile.open(sdist) as archive:
        archive.extractall(empty, filter="data")
    (unpacked,) = empty.iterdir()
    shutil.rmtree(unpacked / "structmat")
    with session.chdir(unpacked):
        session.run("python", "-m", "pytest", *(session.posargs or ["-n", "2", "tests"]))


@nox.session(python=["3.11", "3.12", "3.13", "3.14"], venv_backend="uv", default=False)
@nox.parametrize("versions", ["lowest-direct", "highest"])
def wheel(session: nox.Session, versions: str) -> None:
    """Build the wheel and try it in an empty environment, alone and with extras, on oldest and newest dependencies.

    The oldest are the lower bounds of pyproject.toml, or, where these have no wheel for this Python, the next that do.
    """
    script, elsewhere = Path(".ci/try_installed.py").resolve(), Path(session.create_tmp()).resolve()
    session.run("uv", "build", "--quiet", "--clear", f"--out-dir={elsewhere / 'dist'}", external=True)
    (wheel,) = (elsewhere / "dist").glob("*.whl")
    extras = ["cli", "distributed", "fast", "io", "jax", "peft", "plot", "studies", "torch"]
    for chosen in ([], [f"--extra={extra}" for extra in extras]):
        versions_file = elsewhere / "requirements.txt"
        session.run(
            *("uv", "pip", "compile", "pyproject.toml", "--quiet", "--upgrade", "--only-binary=:all:", *chosen),
            *(f"--resolution={versions}", f"--python={session.virtualenv.location}", f"--output-file={versions_file}"),
            external=True,
        )
        session.install("-r", str(versions_file))
        session.install("--no-deps", "--reinstall", str(wheel))
        with session.chdir(elsewhere):
            session.run("python", str(script))


@nox.session(python="3.13", default=False)
def docs(session: nox.Session) -> None:
    """Build the documentation for a public host into docs/_build/html, which can be copied there as it is."""
    session.install(".[docs]")
    environment = {"DOCS_ONLINE": "1", "OMP_NUM_THREADS": "1"}
    session.run("sphinx-build", "-W", "--keep-going", "docs", "docs/_build/html", *session.posargs, env=environment)


if __name__ == "__main__":
    nox.main()
