#!/usr/bin/env -S uv run --script
# /// script
# dependencies = ["nox>=2025.2.9"]
# ///
"""Sessions that mirror `.ci/run`, for one part at a time: ``nox -s tests``, ``nox -s lint``, ``nox -s docs``."""

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "venv"


@nox.session(python=["3.11", "3.12", "3.13"], default=True)
def tests(session: nox.Session) -> None:
    """Run the tests and the doctests of the modules."""
    session.install("-e", ".[test]")
    session.run("pytest", *(session.posargs or ["-n", "2"]))


@nox.session(default=True)
def lint(session: nox.Session) -> None:
    """Run every static check."""
    session.install("-e", ".[docs,lint,test]")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")
    session.run("lint-imports")
    session.run("validate-pyproject", "pyproject.toml")
    session.run("python", "docs/check_docstrings.py")
    session.run("python", "docs/capabilities.py", "--check")


@nox.session(default=True)
def docs(session: nox.Session) -> None:
    """Build the documentation, with warnings as errors."""
    session.install("-e", ".[docs]")
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html")


if __name__ == "__main__":
    nox.main()
