"""The maps of the package: what the docstring of a folder lists is what the folder holds."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import structmat

ROOT = Path(structmat.__file__).resolve().parent
FOLDERS = [path.parent for path in sorted(ROOT.rglob("__init__.py")) if path.parent != ROOT]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.relative_to(ROOT).as_posix())
def test_the_map_of_a_folder_lists_its_files(folder):
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf-8"))) or ""
    lines = re.findall(r"^- (`\w+`(?:,\s+`\w+`)*):", text, re.MULTILINE)
    if not lines:
        pytest.skip("no map")
    listed = {name for line in lines for name in re.findall(r"`(\w+)`", line)}
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    folders = {path.parent.name for path in folder.glob("*/__init__.py")}
    assert listed - {"main"} == files | folders
    assert len(listed) == sum(len(re.findall(r"`(\w+)`", line)) for line in lines)
