"""Write the operator x operation table of docs/capabilities.md from tests/operator_registry.py.

Run ``python docs/capabilities.py`` to write it, with ``--check`` to fail where it is stale. The laws in
tests/operators/test_laws.py hold every "yes" to a dense reference, every "-" to an error that names the alternative.
"""

import math
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from structmat.extend import closed_forms
from tests.operator_registry import REGISTRY

PAGE = ROOT / "docs/capabilities.md"
START, END = "<!-- capabilities: written by docs/capabilities.py -->\n", "<!-- /capabilities -->\n"
HEADS = {"_spectral_function": "functions"}
"""What stands above a column in place of the names of the methods."""
ENTRIES = [entry for entry in REGISTRY if not (entry.is_variant or entry.is_own)]
NORMS = {"fro": "fro", "nuc": "nuc", 1: "1", 2: "2", math.inf: "∞"}


def groups_of_methods() -> dict[str, tuple[str, ...]]:
    """Return the methods with closed forms by the hook that suffices for them, each group a column."""
    groups: dict[str, tuple[str, ...]] = {}
    for name, form in closed_forms().items():
        hook = form.hooks[0]
        groups[hook] = (*groups.get(hook, ()), name)
    return groups


def methods_of(kind: str) -> dict[str, bool]:
    """Return the methods with closed forms that a class has, and whether operators of all shapes have them."""
    claims = [entry.closed_forms for entry in ENTRIES if kind in re.findall(r"\w+", entry.name)]
    return {name: all(name in claim for claim in claims) for name in closed_forms() if any(name in c for c in claims)}


def cell(entry: Any, group: tuple[str, ...]) -> str:
    present = [name for name in group if name in entry.closed_forms]
    if not present:
        return "-"
    if group == ("norm",):
        return "yes" if set(NORMS) == set(entry.norms) else ", ".join(NORMS[n] for n in NORMS if n in entry.norms)
    return "yes" if len(present) == len(group) else ", ".join(f"`{name}`" for name in present)


def table() -> str:
    groups = groups_of_methods()
    heads = ["operator", *(HEADS.get(hook, ", ".join(f"`{name}`" for name in names)) for hook, names in groups.items())]
    rows = [[entry.name, *(cell(entry, names) for names in groups.values())] for entry in ENTRIES]
    lines = [heads, ["---", *[":---:"] * len(groups)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    if not (rest and after):
        raise SystemExit(f"{PAGE.name} lacks the lines {START.strip()} and {END.strip()}")
    new = f"{before}{START}{table()}{END}{after}"
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(new, encoding="utf-8")
    elif new != text:
        raise SystemExit(f"{PAGE.name}: the operator x operation table is stale; run python docs/capabilities.py")


if __name__ == "__main__":
    main()
