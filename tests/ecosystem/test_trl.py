"""Trainers of TRL."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("trl")

import torch

from tests.ecosystem.programs import LOGGED, causal_outputs, check, check_programs, write_base

TOOLS = ("datasets", "trl")

TRAIN = """
from datasets import Dataset
from structmat.peft import CDDConfig
from trl import {name}Config, {name}Trainer

def vowels(completions, **_):
    return [float(sum(text.count(vowel) for vowel in "aeiou")) for text in completions]

rows = Dataset.from_dict({columns})
arguments = {name}Config(
    "run", num_train_epochs=4, learning_rate=0.05, logging_steps=1, report_to=[], use_cpu=True, bf16=False, {options}
)
config = CDDConfig(target_modules="all-linear", task_type="{task}")
trainer = {name}Trainer("base", args=arguments, train_dataset=rows, peft_config=config, {arguments})
trainer.train()
trainer.save_model("adapter")
model = trainer.model
"""
LOAD = """
import structmat.peft
from peft import {name}

model = {name}.from_pretrained("adapter"{options})
"""
PAIRS = "dict(prompt=['the quick '] * 32, chosen=['fox', 'dog'] * 16, rejected=['cat', 'mole'] * 16)"


def test_the_program_of_the_guide(base: Path) -> None:
    check("TRL", base, **causal_outputs(base), losses=LOGGED)


@pytest.mark.parametrize(
    ("name", "columns", "options", "arguments", "losses"),
    [
        ("DPO", PAIRS, "", "", LOGGED),
        ("KTO", "dict(prompt=['the '] * 32, completion=['fox', 'cat'] * 16, label=[True, False] * 16)", "", "", LOGGED),
        (
            "GRPO",
            "dict(prompt=['the quick ', 'a lazy '] * 16)",
            "max_completion_length=8, num_generations=8, per_device_train_batch_size=32",
            "reward_funcs=vowels",
            LOGGED.replace("row['loss']", "-row['reward']"),
        ),
    ],
    ids=["DPO", "KTO", "GRPO"],
)
def test_trainers_by_preferences(
    name: str, columns: str, options: str, arguments: str, losses: str, tmp_path: Path
) -> None:
    write_base(tmp_path, initializer_range=0.5)  # far from all words being as likely, so that there is what to learn
    train = TRAIN.format(name=name, columns=columns, options=options, arguments=arguments, task="CAUSAL_LM")
    load = LOAD.format(name="AutoPeftModelForCausalLM", options="")
    check_programs(train, load, tmp_path, **causal_outputs(tmp_path), losses=losses)


def test_a_reward_model_and_its_new_head(base: Path) -> None:
    train = TRAIN.format(name="Reward", columns=PAIRS, options="", arguments="", task="SEQ_CLS")
    load = LOAD.format(name="AutoPeftModelForSequenceClassification", options=", num_labels=1")
    outputs = "model(input_ids=torch.arange(4, 12)[None]).logits.detach()"
    check_programs(train, load, base, outputs, LOGGED, base=torch.zeros(1, 1))
