"""`benchmarks/closed_forms.py`: its formulas count what PEFT trains."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

ROWS, COLUMNS = 32, 48


@pytest.fixture
def forms(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return import_module("closed_forms")


@pytest.mark.parametrize(
    ("name", "settings", "ours"),
    [
        ("LoraConfig", {"r": 8}, lambda forms: forms.lora(8)),
        ("LoraConfig", {"r": 8, "use_dora": True}, lambda forms: forms.dora(8)),
        ("AdaLoraConfig", {"init_r": 8, "target_r": 4, "total_step": 9}, lambda forms: forms.adalora(8)),
        ("VeraConfig", {"r": 16}, lambda forms: forms.vera(16)),
        ("FourierFTConfig", {"n_frequency": 100}, lambda forms: forms.fourierft(100)),
        ("C3AConfig", {"block_size": 16}, lambda forms: forms.c3a(1)),
        ("C3AConfig", {"block_size": 4}, lambda forms: forms.c3a(4)),
    ],
    ids=["LoRA", "DoRA", "AdaLoRA", "VeRA", "FourierFT", "C3A", "C3A in more blocks"],
)
def test_the_formula_of_a_method_counts_what_peft_trains(forms, name, settings, ours):
    config = getattr(peft, name)(target_modules=["0"], **settings)
    model = peft.get_peft_model(torch.nn.Sequential(torch.nn.Linear(COLUMNS, ROWS)), config)
    trained = sum(each.numel() for each in model.parameters() if each.requires_grad)
    assert ours(forms).parameters(ROWS, COLUMNS) == trained


def test_what_a_step_computes_once_is_shared_among_its_tokens(forms):
    method = forms.fourierft(100)
    one, many = (method.operations(64, 64, tokens) for tokens in (1, 100))
    assert one - many == pytest.approx(0.99 * 5 * 64 * 64 * 12)
    assert forms.lora(8).operations(64, 64, 1) == 4 * 8 * 64
    assert forms.c3a(1).operations(64, 64, 1) == 2 * 2.5 * 64 * 6 + 6 * 33
    assert forms.cdd().operations(768, 768, 1) == 40652
