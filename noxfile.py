#!/usr/bin/env -S uv run --script
# /// script
# dependencies = ["nox>=2025.2.9"]
# ///
"""What `.ci/run` does not do: other versions of libraries, other tools, benchmarks, the installed package."""

from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "venv"


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
    session.run("pytest", "--slow", *quiet, *(session.posargs or ["-n", "2", "tests"]))


@nox.session(python="3.13", default=False)
def prereleases(session: nox.Session) -> None:
    """Run the tests with pre-releases of all that structmat needs: what the next versions will break."""
    session.install("--pre", "--upgrade", "-e", ".[test]")
    quiet = ("-W", "default")  # new versions deprecate
    session.run("pytest", "--slow", *quiet, *(session.posargs or ["-n", "2", "tests"]))


@nox.session(python="3.11", default=False)
def ecosystem(session: nox.Session) -> None:
    """Train, save, load and use by other tools, as the guide says; write the table of versions that work."""
    session.install("-e", ".[ecosystem]")
    environment = {"STRUCTMAT_ECOSYSTEM": "1" if session.posargs else "write"}
    files = ["tests/ecosystem", "tests/torch/test_tools.py", "tests/peft/test_tools.py"]
    # Tools warn about each other; that is no error here.
    session.run("pytest", "--slow", "-W", "default", *(session.posargs or files), env=environment)


@nox.session(python=["3.11", "3.12", "3.13", "3.14"], venv_backend="uv", default=False)
@nox.parametrize("versions", ["lowest-direct", "highest"])
def package(session: nox.Session, versions: str) -> None:
    """Build sdist and wheel into dist/; try the wheel alone and with extras, on oldest and newest dependencies.

    The oldest are the lower bounds of pyproject.toml, or, where these have no wheel for this Python, the next that do.
    """
    script, elsewhere = Path(".ci/try_installed.py").resolve(), Path(session.create_tmp()).resolve()
    session.run("uv", "build", "--quiet", "--clear", external=True)
    (wheel,) = Path("dist").resolve().glob("*.whl")
    extras = ["fast", "files", "jax", "peft", "studies", "torch"]
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


if __name__ == "__main__":
    nox.main()
