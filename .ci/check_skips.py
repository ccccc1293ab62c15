"""Compare skipped tests with `.ci/skips.toml`: `python .ci/check_skips.py OUTPUT ...`, of what `pytest -ra` printed.

It fails where a reason is not in the list, or is that of more tests than the list allows, and where a run skipped more
tests than it passed.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections import Counter
from pathlib import Path

ALLOWED = Path(__file__).with_name("skips.toml")


def reasons(output: str) -> Counter[str]:
    """Count the skipped tests of a run by their reason."""
    found: Counter[str] = Counter()
    for number, reason in re.findall(r"^SKIPPED \[(\d+)\] [^ ]+: (.+)$", output, re.MULTILINE):
        found[reason] += int(number)
    return found


def last_number(word: str, output: str) -> int:
    """Return the number of tests that ended so, from the last line that says it."""
    return int(["0", *re.findall(rf"(\d+) {word}\b", output)][-1])


def faults(outputs: list[str], allowed: list[dict]) -> list[str]:
    """Return what is wrong with the skips of some runs, a line each."""
    found = []
    total: Counter[str] = Counter()
    for output in outputs:
        passed, skipped = (last_number(word, output) for word in ("passed", "skipped"))
        if skipped >= passed:
            found.append(f"{skipped} tests were skipped, and {passed} passed")
        listed = reasons(output)
        if listed.total() != skipped:
            found.append(f"{skipped} tests were skipped, and {listed.total()} say why: pytest needs -ra")
        total += listed
    for entry in allowed:
        those = {reason: number for reason, number in total.items() if re.fullmatch(entry["reason"], reason)}
        if sum(those.values()) > entry["most"]:
            found.append(
                f"{sum(those.values())} tests were skipped, at most {entry['most']} may be: {'; '.join(those)}"
            )
    found += [
        f"{number} tests were skipped for a reason that is not in the list: {reason}"
        for reason, number in total.items()
        if not any(re.fullmatch(entry["reason"], reason) for entry in allowed)
    ]
    return found


if __name__ == "__main__":
    outputs = [Path(name).read_text("utf-8") for name in sys.argv[1:]]
    wrong = faults(outputs, tomllib.loads(ALLOWED.read_text("utf-8"))["skips"])
    print("\n".join(wrong) or f"{sum(last_number('skipped', each) for each in outputs)} tests skipped, all as allowed")
    sys.exit(bool(wrong))
