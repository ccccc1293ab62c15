"""A UNet of diffusers."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("diffusers")

import torch

from tests.ecosystem.programs import check

TOOLS = ("diffusers",)


def test_the_program_of_the_guide(tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    settings = {
        "sample_size": 8, "block_out_channels": (8, 16), "layers_per_block": 1, "cross_attention_dim": 8,
        "attention_head_dim": 4, "norm_num_groups": 4, "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }  # fmt: skip
    unet = UNet2DConditionModel(**settings).eval()
    unet.save_pretrained(tmp_path / "unet")
    outputs = "model(torch.ones(1, 4, 8, 8), 3, torch.ones(1, 3, 8)).sample.detach()"
    plain = unet(torch.ones(1, 4, 8, 8), 3, torch.ones(1, 3, 8)).sample.detach()
    check("diffusers", tmp_path, outputs, "losses", plain)
