"""Run the Python blocks of README.md as one who pastes them does: `python .ci/run_readme_blocks.py FOLDER WHEEL`.

Each block runs twice, in an empty folder that it must leave empty, by the Python of an environment with what WHEEL
holds, the extras that the paragraph above it names (as in: with the extra `torch`), and nothing else.

The environments are made in FOLDER. What the extras ask for is linked from the environment of the Python that runs this
script, where the package and these extras must be installed: nothing is installed anew, or compiled to byte code.
"""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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


def required(extras: tuple[str, ...]) -> dict[str, Distribution]:
    """Return what the package needs with some extras, by name, as `pip install` would find it; not the package."""
    found: dict[str, Distribution] = {}
    todo, seen = [("structmat", extra) for extra in ("", *extras)], set()
    while todo:
        name, extra = todo.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        found[name] = distribution(name)
        for text in found[name].requires or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                todo += [(canonicalize_name(needed.name), each) for each in ("", *needed.extras)]
    del found["structmat"]
    return found


def environment(folder: Path, wheel: Path, extras: tuple[str, ...]) -> str:
    """Make an environment with what a wheel holds and some extras need; return its Python."""
    place = folder / "-".join(extras or ("none",))
    python = place / "bin" / "python"
    if not python.exists():
        venv.create(place, symlinks=True)
        packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(place)}))
        for each in required(extras).values():
            for name in {path.parts[0] for path in each.files or () if path.parts[0] not in {"..", "__pycache__"}}:
                if not (packages / name).exists():  # two may share a folder
                    (packages / name).symlink_to(each.locate_file(name))
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(packages)
    return str(python)


def main() -> None:
    """Run all blocks; the first that fails ends it with an error."""
    folder, wheel = map(Path, sys.argv[1:])
    found = blocks((ROOT / "README.md").read_text("utf-8"))
    for block in found:
        run_twice(environment(folder, wheel, block.extras), block.source)
        print(f"README.md, line {block.line}: ran twice with {', '.join(block.extras) or 'no extra'}", flush=True)
    print(f"{len(found)} blocks ran")


if __name__ == "__main__":
    main()
