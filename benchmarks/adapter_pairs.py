"""Claim: to clip adapter and head apart gains a third of a point; no other product of as many numbers gains one.

    taskset -c 0 python benchmarks/adapter_pairs.py --data FOLDER [--out FOLDER] [--only QUESTION ...]
    python benchmarks/adapter_pairs.py --report

What differs in one thing from D C D, or LoRA, on query and value layers is compared with the runs of that in
`fair_adapters.py`, by the same protocol and paired by seed; where that has no run with a seed, what is compared with is
run here too. Each run is one line of `results/adapter_pairs.csv`, which has the commit of the code, and what stands
there is not done again. Runs go by seeds, so that what is there when they are stopped is of whole pairs.
`--report` writes the tables into `results/adapter_accuracy.md`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import _one_thread  # noqa: F401
from _common import begin, finish, parser
from _fair_plan import PROTOCOLS, Protocol
from _pair_plan import ARMS, TRIAL_SEED

EXAMPLES = Path(__file__).parent.parent / "docs/examples"
RESULTS = Path(__file__).parent / "results"
UNUSED = "none, the runs are of torch; date and machine are those of the report, the others stand below"


def main() -> None:
    made = parser(__doc__, "two arms of 32 rows, to see that it runs; keeps nothing")
    made.add_argument("--data", type=Path, default=EXAMPLES / "data", help="folder with the tasks that are not shipped")
    made.set_defaults(out=RESULTS)
    questions = list(dict.fromkeys(arm.question for arm in ARMS))
    made.add_argument("--only", nargs="+", choices=questions, default=questions, metavar="QUESTION")
    made.add_argument("--report", action="store_true", help="run nothing, write the report")
    options = begin(made)
    if options.quick:
        with TemporaryDirectory() as folder:
            options.out = Path(folder)
            run(options, Protocol(32, 1, 16, 16))
        return
    (report if options.report else run)(options)


def report(options: argparse.Namespace) -> None:
    from _fair_report import merged, read  # noqa: PLC0415
    from _pair_report import page  # noqa: PLC0415

    rows, named, earlier = (
        read(options.out / f"{name}.csv") for name in ("adapter_pairs", "fair_adapters", "fair_adapters_earlier")
    )
    parts, title = page(rows, merged(named, earlier)), "What one difference to D C D changes"
    finish(options.out, "adapter_accuracy", title, *parts, engines=UNUSED, packages=())


def run(options: argparse.Namespace, protocol: Protocol | None = None) -> None:
    sys.path.insert(0, str(EXAMPLES))
    import torch  # noqa: PLC0415
    from _fair_runs import Bench, Table  # noqa: PLC0415
    from _pair_methods import METHODS  # noqa: PLC0415

    import finetune.methods  # noqa: PLC0415

    finetune.methods.METHODS.update(METHODS)
    torch.set_num_threads(1)
    bench = Bench(Table(options.out / "adapter_pairs.csv"), options.data, {})
    arms = [arm for arm in ARMS if arm.question in options.only]
    if options.quick:
        arms = [arm for arm in arms if arm.method in {"cdd-apart", "product-cdc"}]
    todo = [(seed, task, arm) for seed in range(10) for arm in arms if seed in arm.seeds for task in arm.rates]
    if options.quick:
        todo = [each for each in todo if each[1] == "goemotions"][:2]
    for seed, task, arm in todo:
        of_task, rates = protocol or PROTOCOLS[task], arm.rates[task]
        rate = rates[0] if len(rates) == 1 else bench.best(arm.on(task), of_task, rates, (TRIAL_SEED,))
        compared = [arm.on(task)]
        if seed not in of_task.final_seeds:  # the study has no run to compare with
            compared.insert(0, arm.baseline(task))
        for case in compared:
            bench.run(case, of_task, "final", rate, seed)
            print(seed, case, rate, flush=True)


if __name__ == "__main__":
    main()
