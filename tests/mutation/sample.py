"""Leave a random sample of the mutants in a session of cosmic-ray: ``sample.py SESSION COUNT SEED``.

In a copy of the sources, since mutants are written into them::

    cosmic-ray init tests/mutation/cosmic-ray.toml session.sqlite
    python tests/mutation/sample.py session.sqlite 200 0
    bash tests/mutation/run session.sqlite  # goes on where it was interrupted; session.log says what caught each
    cr-report --show-diff --surviving-only session.sqlite
"""

from __future__ import annotations

import random
import re
import sqlite3
import sys
from contextlib import closing

EQUIVALENT = re.compile(r"BitOr_|_Invert|_Eq_Is|_NotEq_Is")
"""Operators on annotations, which nothing runs, or that Python warns of."""
CRUDE = re.compile(r"_(RShift|LShift|BitOr|BitAnd|BitXor|FloorDiv|Mod|Pow)$")
"""Operators that any test notices."""


def main(session: str, count: str, seed: str) -> None:
    """Draw places in the sources, and at each of them one mutant."""
    with closing(sqlite3.connect(session)) as database:
        places: dict[tuple[object, ...], list[str]] = {}
        columns = "module_path, start_pos_row, start_pos_col, operator_name, job_id"
        for *place, operator, job in database.execute(f"select {columns} from mutation_specs order by {columns}"):  # noqa: S608
            if not EQUIVALENT.search(operator) and not CRUDE.search(operator):
                places.setdefault(tuple(place), []).append(job)
        rng = random.Random(int(seed))  # noqa: S311
        kept = [rng.choice(places[place]) for place in rng.sample(sorted(places), int(count))]
        for table in ("mutation_specs", "work_items"):
            marks = ", ".join("?" * len(kept))
            database.execute(f"delete from {table} where job_id not in ({marks})", kept)  # noqa: S608
        database.commit()


if __name__ == "__main__":
    main(*sys.argv[1:])
