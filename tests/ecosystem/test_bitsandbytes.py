"""Layers of bitsandbytes."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("bitsandbytes")
pytest.importorskip("peft")

from tests.ecosystem.programs import causal_outputs, check_programs, programs, write_base

TOOLS = ("bitsandbytes",)

SIZES = {"hidden_size": 128, "intermediate_size": 128, "num_key_value_heads": 2}
"""Multiples of what 4 bits on a CPU ask for."""


@pytest.mark.parametrize(("bits", "kind"), [(8, "Linear8bitLt"), (4, "Linear4bit")])
def test_the_program_of_the_guide_for_torchao(bits: int, kind: str, tmp_path: Path) -> None:
    write_base(tmp_path, **SIZES)
    train, load = (
        program.replace("TorchAoConfig(Int8WeightOnlyConfig())", f"BitsAndBytesConfig(load_in_{bits}bit=True)")
        .replace("TorchAoConfig", "BitsAndBytesConfig")
        .replace("from torchao.quantization import Int8WeightOnlyConfig\n", "")
        for program in programs("Quantised bases")
    )
    kinds = "{type(m).__name__ for m in model.modules()}"
    losses = f"losses if {kind!r} in {kinds} else {kinds}"
    # On a CPU activations are rounded too, to 8 bits or bfloat16, which enlarges rounding errors of another process.
    check_programs(train, load, tmp_path, **causal_outputs(tmp_path), losses=losses, atol=0.01)
