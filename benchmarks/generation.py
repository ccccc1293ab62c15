"""Claim: a decoder that is to write another language learns it by D C D better than by LoRA of its size, IA3 or C3A.

    python benchmarks/generation.py [--out FOLDER] [--cache FOLDER]
    python benchmarks/generation.py --report

A small decoder of Llama's kind learns five tasks in words and numbers, characters being its tokens: numbers in English
words and back, dates in English words and in another form, letters in reverse. Then it is frozen, and a prompt
that it answers in English is to be answered in German: "d1987-03-21=" not by "the twenty first of march 1987" but by
"einundzwanzigster maerz 1987". All texts are made by rule (`_generation_texts.py`); no day is in two of the parts that
the base learns from, the adapters learn from, rates are chosen by, and the last runs are tested on.

The base is trained first, from one seed, and kept in the folder of --cache under a name that depends on its settings
and texts. Each run is one line of `generation.csv`, and what stands there is not done again: stop the command whenever
you like, and go on with the same one. A run depends on its seed and the base alone, and on the same machine it gives
the same numbers again. `--report` writes the tables into `generation.md`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import _one_thread  # noqa: F401
from _common import begin, finish, parser
from _fair_plan import Protocol
from _generation_plan import CASES, PROTOCOLS

EXAMPLES = Path(__file__).parent.parent / "docs/examples"
RESULTS = Path(__file__).parent / "results"
UNUSED = "none, the runs are of torch; date and machine are those of the report, the others stand below"


def main() -> None:
    made = parser(__doc__, "two cases of a tiny base, to see that it runs; keeps nothing")
    made.set_defaults(out=RESULTS)
    made.add_argument("--cache", type=Path, metavar="FOLDER", default=Path(tempfile.gettempdir()) / "structmat-bases")
    made.add_argument("--report", action="store_true", help="run nothing, write the report")
    options = begin(made)
    sys.path.insert(0, str(EXAMPLES))
    if options.report:
        report(options.out)
    elif options.quick:
        with tempfile.TemporaryDirectory() as folder:
            options.out = options.cache = Path(folder)
            run(options)
    else:
        run(options)


def report(out: Path) -> None:
    from _generation_report import page, read  # noqa: PLC0415

    parts = page(read(out / "generation.csv"), CASES, PROTOCOLS)
    finish(out, "generation", "Dates in German words", *parts, engines=UNUSED, packages=())


def run(options: argparse.Namespace) -> None:
    import torch  # noqa: PLC0415
    from _generation_runs import COLUMNS, Base, Generations, Table  # noqa: PLC0415

    torch.set_num_threads(1)
    base, protocols, cases = Base(), PROTOCOLS, CASES
    if options.quick:
        base = Base(width=48, inner=96, layers=1, heads=2, length=32, batch=2, steps=2)
        sizes = {"rows": 4, "epochs": 1, "batch": 4, "held_back": 2, "test_rows": 2}
        protocols = {"dates": Protocol(**sizes, trial_seeds=(100,), final_seeds=(0,), metric="exact")}
        cases = CASES[:2]
    bench = Generations(Table(options.out / "generation.csv", COLUMNS), base, base.trained(options.cache))
    begun = time.monotonic()
    for task, protocol in protocols.items():
        for way in (bench.choose, bench.do):  # the last runs follow one another, for their times
            for case in cases:
                if case.task == task:
                    way(case, protocol)
                    print(f"{(time.monotonic() - begun) / 3600:.2f} h: {way.__name__} {case}", flush=True)


if __name__ == "__main__":
    main()
