"""Where D C D stands among the methods of PEFT with few parameters: score on real tasks, and what each costs.

    taskset -c 0 python benchmarks/few_parameters.py --data FOLDER [--out FOLDER] [--only TASK ...]
    python benchmarks/few_parameters.py --report

D C D, the LoRA of nearest size and twelve other methods of PEFT are trained by the protocol of `fair_adapters.py`: four
rates with two seeds each, scored on training rows that are held back, one rate further where the best is at an edge,
and five new seeds with the best rate on the test rows. All runs stand in `results/few_parameters.csv`, one line each;
what stands there is not done again, so stop the command whenever you like, and go on with the same one. A run is
repeated, with its seed, after its line is deleted. FOLDER holds the tasks that are not shipped
(`docs/examples/data/README.md`). `--report` measures what each method costs and writes the section of
`results/adapter_accuracy.md` and the figure.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import _one_thread  # noqa: F401
from _common import begin, finish, parser
from _fair_plan import PROTOCOLS, RATES, Protocol
from _few_plan import TASKS_OF_THE_STUDY, cases

EXAMPLES = Path(__file__).parent.parent / "docs/examples"
RESULTS = Path(__file__).parent / "results"
UNUSED = "none, the runs are of torch; date and machine are those of the report and of the costs"


def main() -> None:
    made = parser(__doc__, "two cases of 32 rows and their costs, to see that it runs; keeps nothing")
    made.add_argument("--data", type=Path, default=EXAMPLES / "data", help="folder with the tasks that are not shipped")
    made.set_defaults(out=RESULTS)
    made.add_argument("--only", nargs="+", choices=TASKS_OF_THE_STUDY, default=list(TASKS_OF_THE_STUDY), metavar="TASK")
    made.add_argument("--report", action="store_true", help="train nothing, measure the costs and write the report")
    options = begin(made)
    sys.path.insert(0, str(EXAMPLES))
    if options.quick:
        with TemporaryDirectory() as folder:
            options.out = Path(folder)
            run(options)
        return
    (report if options.report else run)(options)


def report(options: argparse.Namespace) -> None:
    from _fair_report import read, results  # noqa: PLC0415
    from _few_costs import costs  # noqa: PLC0415
    from _few_report import figure, page, standings  # noqa: PLC0415

    rows = read(options.out / "few_parameters.csv")
    if not standings(results(rows, cases()))[1]:
        sys.exit(f"no method has all its runs of {TASKS_OF_THE_STUDY[0]} yet")
    parts = page(rows, costs(cases(), options.data, rounds=5))
    title = "Methods of PEFT with few parameters"
    finish(options.out, "adapter_accuracy", title, *parts, engines=UNUSED, packages=("torch", "peft", "transformers"))
    figure(rows, options.out / "few_parameters.png")


def run(options: argparse.Namespace) -> None:
    import torch  # noqa: PLC0415
    from _fair_runs import Bench, Table, work_through  # noqa: PLC0415
    from _few_costs import costs  # noqa: PLC0415
    from _few_methods import RATES as FEW_RATES  # noqa: PLC0415

    torch.set_num_threads(1)
    bench = Bench(Table(options.out / "few_parameters.csv"), options.data, RATES | FEW_RATES)
    todo = [case for case in cases() if case.task in options.only]
    protocols = PROTOCOLS
    if options.quick:
        todo = [case for case in todo if case.method in {"cdd", "ia3"}][:2]
        protocols = {todo[0].task: Protocol(32, 1, 16, 16, (100,), (0,))}
        print(costs(todo, options.data, rounds=1))
    work_through([(bench.do, case) for case in todo], protocols)


if __name__ == "__main__":
    main()
