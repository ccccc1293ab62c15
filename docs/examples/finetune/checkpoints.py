"""Fine-tune the whole encoder on a task, and write its weights before and after: what a study of changes begins with.

cd docs/examples && python -m finetune.checkpoints --out checkpoints

Writes `base.safetensors` and `tuned.safetensors`, the encoder alone, in single precision.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from cyclopts import App
from rich.console import Console
from rich.progress import Progress
from safetensors.torch import save_file

from finetune.data import SHIPPED, TASKS, ExampleError, load_task
from finetune.encoder import load_tokenizer
from finetune.train import Run, Settings, fit, predict, prepare

app = App(name="finetune.checkpoints", help=__doc__.partition("\n\n")[0])


@app.default
def write(
    *, out: Path, rows: int = 3000, epochs: int = 3, lr: float = 1e-4, head_lr: float = 0.01, seed: int = 0
) -> None:
    """Train on BANKING77 and write both checkpoints.

    Parameters
    ----------
    out
        Folder for the two files.
    rows
        Number of training rows.
    epochs
        Passes over them.
    lr
        Learning rate of the encoder.
    head_lr
        Learning rate of the head.
    seed
        Of the head's start, the batches and the dropout.
    """
    settings = Settings(None, epochs, 32, head_lr, 64, None, "cpu")
    run = Run("banking77", "full", lr, seed, rows)
    training, test = load_task(run.task, SHIPPED, load_tokenizer(None), settings.max_tokens)
    training = training[:rows]
    out.mkdir(parents=True, exist_ok=True)
    model, prepared = prepare(run, settings, len(training), TASKS[run.task].classes)
    save_file(_weights(model.encoder), out / "base.safetensors")
    console = Console(stderr=True)
    with Progress(console=console) as progress:
        bar = progress.add_task("training", total=1.0)

        def advance(state: str, share: float) -> None:
            progress.update(bar, advance=share, description=state)

        fit(model, prepared, run, settings, rows=training, embeddings=None, advance=advance)
        right = predict(model, test, settings, lambda n: advance("testing", 0.1 * n / len(test))) == test.labels
    share = right.double().mean()
    save_file(_weights(model.encoder), out / "tuned.safetensors")
    console.print(f"{len(training):,} rows, {epochs} epochs: {100 * share:.2f} % of {len(test):,} test rows are right")


def _weights(encoder: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone().contiguous() for name, tensor in encoder.state_dict().items()}


if __name__ == "__main__":
    try:
        app()
    except ExampleError as error:
        sys.exit(f"finetune.checkpoints: error: {error}")
