"""Run the Python blocks of README.md as one who pastes them does: `python .ci/run_readme_blocks.py FOLDER`.

Each block runs twice, in an empty folder that it must leave empty, by the Python of an environment with the extras that
the paragraph above it names (as in: with the extra `torch`), and nothing else. The environments are made in FOLDER.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"\bextras? ((?:`[a-z]+`(?:, | and )?)+)")


class Block(NamedTuple):
    """A block of Python, the line it begins in, and the extras that it needs."""

    line: int
    extras: tuple[str, ...]
    source: str


def blocks(text: str) -> list[Block]:
    """Return the Python blocks of a page, each with the extras that the paragraph above it names."""
    found = []
    for match in BLOCK.finditer(text):
        before = text[: match.start()]
        paragraph = before.rstrip().rpartition("\n\n")[2]
        extras = {extra for names in NAMED.findall(paragraph) for extra in re.findall(r"`(\w+)`", names)}
        found.append(Block(before.count("\n") + 1, tuple(sorted(extras)), match.group(1)))
    return found


def run_twice(python: str, source: str) -> None:
    """Run a block twice in an empty folder; raise `RuntimeError` where it fails, or leaves a file there."""
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            run = subprocess.run([python, "-c", source], cwd=folder, check=False, capture_output=True, text=True)
            if run.returncode:
                raise RuntimeError(run.stderr)
        if left := [path.name for path in Path(folder).iterdir()]:
            raise RuntimeError(f"it leaves {', '.join(left)} in the folder where it runs")


def environment(folder: Path, extras: tuple[str, ...]) -> str:
    """Make an environment with the package and some extras; return its Python."""
    place = folder / "-".join(extras or ("none",))
    python = place / "bin" / "python"
    if not python.exists():
        venv.create(place, with_pip=True)
        what = f"{ROOT}[{','.join(extras)}]" if extras else str(ROOT)
        subprocess.run([python, "-m", "pip", "install", what], check=True)
    return str(python)


def main() -> None:
    """Run all blocks; the first that fails ends it with an error."""
    (folder,) = sys.argv[1:]
    found = blocks((ROOT / "README.md").read_text("utf-8"))
    for block in found:
        run_twice(environment(Path(folder), block.extras), block.source)
        print(f"README.md, line {block.line}: ran twice with {', '.join(block.extras) or 'no extra'}", flush=True)
    print(f"{len(found)} blocks ran")


if __name__ == "__main__":
    main()
