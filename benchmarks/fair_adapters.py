"""Claim: in the mean of real tasks D C D is not told apart from the LoRA of the nearest size on the same layers.

    taskset -c 0 python benchmarks/fair_adapters.py --data FOLDER [--out FOLDER] [--only TASK ...]
    python benchmarks/fair_adapters.py --report

FOLDER holds the tasks that are not shipped (`docs/examples/data/README.md`). Each run is one line of
`results/fair_adapters.csv`, and what stands there is not done again: stop the command whenever you like, and go on with
the same one. All lines there are of one commit, which they name. D C D and LoRA on the same layers come first, by
seeds. `fair_adapters_earlier.csv` has the runs of earlier days, whose code is not named: the trials that chose the
rates, which are not done again, and last runs of other methods, sizes and tasks. `fair_adapters_all_linear.csv` has
runs of the same commit in all linear layers, on another processor. A run depends on its seed alone, so on
the same machine it gives the same numbers again; `fair_adapters_again.csv` has earlier runs repeated on another one.
`--report` writes the tables into `results/adapter_accuracy.md`, of the cases that have all their runs.
Stop the runs before `git` changes files here: a table that it replaces is another file than the one that is open.

The model is the example's, `docs/examples/finetune`, as is the loop of training. The encoder multiplies in bfloat16
(torch's autocast); weights, adapters and optimizer are in float32. The report has the rules for rates and rows; of
rates with equal means the smallest is chosen.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import _one_thread  # noqa: F401
from _common import begin, finish, parser
from _fair_plan import PROTOCOLS, RATES, Protocol, cases, compared, tried

EXAMPLES = Path(__file__).parent.parent / "docs/examples"
RESULTS = Path(__file__).parent / "results"
UNUSED = "none, the runs are of torch; date and machine are those of the report, the others stand below"


def main() -> None:
    made = parser(__doc__, "two cases of 32 rows, to see that it runs; keeps nothing")
    made.add_argument("--data", type=Path, default=EXAMPLES / "data", help="folder with the tasks that are not shipped")
    made.set_defaults(out=RESULTS)
    made.add_argument("--only", nargs="+", choices=list(PROTOCOLS), default=list(PROTOCOLS), metavar="TASK")
    made.add_argument("--report", action="store_true", help="run nothing, write the report")
    options = begin(made)
    if options.quick:
        with TemporaryDirectory() as folder:
            options.out = Path(folder)
            run(options)
        return
    (report if options.report else run)(options)


def report(options: argparse.Namespace) -> None:
    from _fair_figure import figure  # noqa: PLC0415
    from _fair_report import page, read, results  # noqa: PLC0415

    rows = read(options.out / "fair_adapters.csv")
    earlier = read(options.out / "fair_adapters_earlier.csv")
    parts = page(rows, earlier, read(options.out / "fair_adapters_again.csv"))
    finish(options.out, "adapter_accuracy", "Adapters on real tasks", *parts, engines=UNUSED, packages=())
    sys.path.insert(0, str(EXAMPLES))
    from _few_plan import cases as few_cases  # noqa: PLC0415
    from _statements import (  # noqa: PLC0415
        of_all_linear,
        of_earlier_runs,
        of_fair_runs,
        of_few_parameters,
        of_readme,
        summary,
        whole_tasks,
    )

    few = read(options.out / "few_parameters.csv")
    found = results(rows, compared())
    others = [*results(earlier, cases()), *results(few, few_cases())]
    figure(found, others, whole_tasks(found), options.out / "fair_adapters.png")
    sentences = [*of_fair_runs(rows), *of_all_linear(read(options.out / "fair_adapters_all_linear.csv"))]
    sentences += [*of_earlier_runs(earlier), *of_few_parameters(few), *of_readme(rows)]
    print("", summary(found), *sentences, sep="\n\n")


def run(options: argparse.Namespace) -> None:
    sys.path.insert(0, str(EXAMPLES))
    import torch  # noqa: PLC0415
    from _fair_report import read  # noqa: PLC0415
    from _fair_runs import Bench, Table, work_through  # noqa: PLC0415

    torch.set_num_threads(1)
    trials = [] if options.quick else read(RESULTS / "fair_adapters_earlier.csv")
    bench = Bench(Table(options.out / "fair_adapters.csv"), options.data, RATES, trials=trials)
    bench.require_one_commit()
    todo = [(partial(bench.last, seed=seed), case) for seed in range(5) for case in compared()]
    todo += [(bench.choose, case) for case in tried()] + [(bench.do, case) for case in cases()]
    todo = [(way, case) for way, case in todo if case.task in options.only]
    protocols = PROTOCOLS
    if options.quick:
        todo = [(way, case) for way, case in todo if case.task == "goemotions" and case.method in {"lora", "cdd"}][:2]
        protocols = {"goemotions": Protocol(32, 1, 16, 16, (100,), (0,))}
    work_through(todo, protocols)


if __name__ == "__main__":
    main()
