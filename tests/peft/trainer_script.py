"""Trains a tiny model by transformers' Trainer; kills itself in the middle if told to, resumes from a checkpoint.

``python -m tests.peft.trainer_script FOLDER STEP_TO_DIE_AT`` trains to the end in ``FOLDER/whole``, and once more in
``FOLDER/killed``; ``python -m tests.peft.trainer_script FOLDER`` goes on with the latter.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import get_peft_model

from structmat.peft import CDDConfig
from tests.peft import tiny


class Rows(torch.utils.data.Dataset):
    def __init__(self) -> None:
        self.inputs = tiny.inputs("bert", samples=32)["input_ids"]

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": self.inputs[index], "labels": int(self.inputs[index, 0] % 3)}


class Killed(transformers.TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def train(folder: Path, step: int | None = None) -> None:
    config = CDDConfig(target_modules=["query", "value"], modules_to_save=["classifier"], task_type="SEQ_CLS")
    model = get_peft_model(tiny.model("bert"), config)
    settings = transformers.TrainingArguments(
        output_dir=str(folder / "run"),
        max_steps=9,
        save_steps=2,
        per_device_train_batch_size=4,
        learning_rate=1e-3,
        seed=3,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    trainer = transformers.Trainer(model, settings, train_dataset=Rows(), callbacks=[Killed(step)] if step else [])
    trainer.train(resume_from_checkpoint=any((folder / "run").glob("checkpoint-*")))
    model.save_pretrained(folder / "adapter")


if __name__ == "__main__":
    folder, *step = sys.argv[1:]
    if step:
        train(Path(folder) / "whole")
    train(Path(folder) / "killed", *map(int, step))
