"""The patch that adds the method CDD to Hugging Face PEFT: write it, check it, or put it into a checkout of PEFT.

    python contrib/peft/make.py                  write what comes from the package into contrib/peft/files
    python contrib/peft/make.py --check          say whether that would change anything
    python contrib/peft/make.py --into CHECKOUT  add the method to a checkout of PEFT

The folder `files` holds the new files of the patch, and `insertions.toml` what it adds to files that PEFT has. From the
package come the options of `CDDConfig` with their defaults and descriptions, the settings of the experiment, and the
figures of the page. The layer is written for PEFT by hand, in plain operations of torch: tests/peft/test_patch.py
compares its outputs, gradients, merged weights and files with those of `structmat.peft`.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import shutil
import sys
import textwrap
import tomllib
from collections.abc import Mapping
from dataclasses import Field, fields
from pathlib import Path

from structmat import CDDLayout
from structmat.peft import CDDConfig
from structmat.torch import CDDAdapter

HERE = Path(__file__).resolve().parent
FILES = HERE / "files"

CONFIG = "src/peft/tuners/cdd/config.py"
EXPERIMENT = "method_comparison/MetaMathQA/experiments/cdd/llama-3.2-3B-lr_0.001"
PAGE = "docs/source/package_reference/cdd.md"

WIDTH = 119
"""PEFT's limit of a line."""
LLAMA_LAYERS = 28
LLAMA_TARGETS = {"q_proj": (3072, 3072), "v_proj": (1024, 3072)}
"""Rows and columns of the adapted weights in each layer of Llama 3.2 3B, the model of PEFT's comparison."""


def options() -> list[Field]:
    """Return the fields of the package's `CDDConfig` that are options of each change."""
    names = inspect.signature(CDDAdapter).parameters
    return [field for field in fields(CDDConfig) if field.name in names]


def descriptions() -> dict[str, tuple[str, str]]:
    """Return the kind and the description of each option, from the docstring of the package's `CDDConfig`."""
    entry = re.compile(r"^(\w+) : (.+), default (.+)\n((?:    .+\n)+)", re.MULTILINE)
    found = entry.findall(inspect.getdoc(CDDConfig) + "\n")
    return {
        name: (f"`{kind}`, *optional*, defaults to `{default}`", " ".join(text.split()).replace("``", "`"))
        for name, kind, default, text in found
    }


def config(text: str) -> str:
    """Return PEFT's config.py with the options of the package, which stand first in the docstring and the class."""
    entries, settings = "", ""
    described = descriptions()
    for option in options():
        kind, description = described[option.name]
        body = textwrap.fill(description, WIDTH, initial_indent=" " * 12, subsequent_indent=" " * 12)
        entries += f"        {option.name} ({kind}):\n{body}\n"
        default = json.dumps(option.default)
        kind = option.type.replace("'", '"')
        settings += f"    {option.name}: {kind} = field(\n        default={default},\n        metadata={{\n"
        settings += f"            {json.dumps('help')}: {json.dumps(option.metadata['help'])},\n        }},\n    )\n"
    text = between(text, "    Args:\n", "        target_modules (", entries)
    return between(text, '    """\n\n', "    target_modules:", settings)


def experiment(_: str) -> str:
    """Return the settings of the experiment: the defaults on query and value, as in other experiments of PEFT."""
    chosen = {
        "auto_mapping": None,
        "base_model_name_or_path": None,
        "bias": "none",
        "exclude_modules": None,
        "inference_mode": False,
        "init_weights": True,
        "layers_pattern": None,
        "layers_to_transform": None,
        "modules_to_save": None,
        "peft_type": "CDD",
        "revision": None,
        "target_modules": list(LLAMA_TARGETS),
        "task_type": "CAUSAL_LM",
    }
    chosen |= {option.name: option.default for option in options()}
    return json.dumps(chosen, indent=2, sort_keys=True) + "\n"


def page(text: str) -> str:
    """Return the documentation with the number of parameters of the experiment."""
    count = LLAMA_LAYERS * sum(CDDLayout(shape).n_parameters for shape in LLAMA_TARGETS.values())
    rank = LLAMA_LAYERS * sum(map(sum, LLAMA_TARGETS.values()))
    figures = f" {count:,} parameters, as many as LoRA of rank {count / rank:.1f} would have."
    return between(text, "For the query and value projections of Llama 3.2 3B these are", "\n", figures)


GENERATED = {CONFIG: config, f"{EXPERIMENT}/adapter_config.json": experiment, PAGE: page}
"""The files that hold what comes from the package, with what writes them."""


def between(text: str, start: str, end: str, new: str) -> str:
    """Return a text with what stands between the first `start` and the next `end` replaced."""
    head, start, rest = text.partition(start)
    _, end, tail = rest.partition(end)
    if not end:
        raise ValueError(f"there is no {start!r} with {end!r} behind it")
    return head + start + new + end + tail


def changes() -> dict[Path, str]:
    """Return the generated files that differ from what is there, with what they should hold."""
    found = {}
    for name, written in GENERATED.items():
        path = FILES / name
        old = path.read_text("utf-8") if path.exists() else ""
        new = written(old)
        if new != old:
            found[path] = new
    return found


def inserted(text: str, insertion: Mapping[str, str]) -> str:
    """Return the text of a file of PEFT with an insertion, whose place must be there exactly once."""
    (place,) = insertion.keys() & {"after", "before", "replace"}
    lines, new = insertion[place], insertion["text"]
    at = [match.start() for match in re.finditer(rf"^{re.escape(lines)}", text, re.MULTILINE)]
    if len(at) != 1:
        raise ValueError(f"{insertion['file']}: found {len(at)} times, not once, the lines\n{lines}")
    new = {"after": lines + new, "before": new + lines, "replace": new}[place]
    return text[: at[0]] + new + text[at[0] + len(lines) :]


def put_into(checkout: Path) -> None:
    """Add the method to a checkout of PEFT, of which nothing is changed where a place of an insertion is missing."""
    if (checkout / CONFIG).exists():
        raise ValueError(f"{checkout} has the method already: begin with a checkout without it")
    edited: dict[Path, str] = {}
    for insertion in tomllib.loads((HERE / "insertions.toml").read_text("utf-8"))["insertion"]:
        path = checkout / insertion["file"]
        text = edited.get(path) or path.read_text("utf-8")
        edited[path] = inserted(text, insertion)
    shutil.copytree(FILES, checkout, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    for path, text in edited.items():
        path.write_text(text, "utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file would change")
    what.add_argument("--into", type=Path, metavar="CHECKOUT", help="a checkout of PEFT to which the method is added")
    arguments = parser.parse_args()
    stale = changes()
    for path in stale:
        print(path.relative_to(HERE), "is not what the package says" if arguments.check else "written")
    if arguments.check:
        return bool(stale)
    for path, text in stale.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    if arguments.into is not None:
        try:
            put_into(arguments.into)
        except (OSError, ValueError) as error:
            parser.error(str(error))
        print("PEFT in", arguments.into, "has the method")
    return 0


if __name__ == "__main__":
    sys.exit(main())
