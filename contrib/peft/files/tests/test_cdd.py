# Copyright 2026-present the HuggingFace Inc. team.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from peft import CDDConfig, PeftModel, get_peft_model
from peft.tuners.cdd.layer import CDDAdapter, block_circulant_product


def dense_block_circulant(circulants, rows, cols):
    # by definition: entry (i, j) of a block is the entry (i - j) % b of its first column
    b = circulants.shape[-1]
    dense = torch.zeros(rows, cols, dtype=circulants.dtype)
    for row in range(rows):
        for col in range(cols):
            dense[row, col] = circulants[row // b, col // b, (row - col) % b]
    return dense


def dense_change(adapter, in_features, out_features):
    # the product of the factors, multiplied as dense matrices in double precision
    change = torch.eye(in_features, dtype=torch.float64)
    for vector, scale, (rows, cols) in reversed(list(zip(adapter.vectors, adapter.scales, adapter.factor_shapes))):
        factor = scale * vector.detach().double()
        matrix = torch.diag(factor) if factor.ndim == 1 else dense_block_circulant(factor, rows, cols)
        change = matrix @ change
    return adapter.alpha * change


class TestCDD:
    # square, wide, tall and prime layers; blocks that divide both sizes, one of them or none; the largest blocks
    @pytest.mark.parametrize("in_features, out_features", [(6, 6), (12, 4), (4, 12), (7, 11), (1, 5)])
    @pytest.mark.parametrize(
        "n_factors, block_size", [(3, "min"), (3, "toeplitz"), (3, 1), (3, 3), (3, 5), (5, "min"), (5, 3)]
    )
    def test_output_gradient_and_delta_weight_are_those_of_the_dense_product(
        self, in_features, out_features, block_size, n_factors
    ):
        torch.manual_seed(0)
        config = CDDConfig(
            target_modules=["0"], n_factors=n_factors, block_size=block_size, alpha=0.5, init_weights=False
        )
        base = nn.Linear(in_features, out_features).double()
        model = get_peft_model(nn.Sequential(base), config)
        layer = model.base_model.model[0]
        expected = dense_change(layer.cdd_adapters["default"], in_features, out_features)
        torch.testing.assert_close(layer.get_delta_weight("default"), expected)

        x = torch.randn(2, 3, in_features, dtype=torch.float64, requires_grad=True)
        weight = (base.weight + expected).detach()
        torch.testing.assert_close(model(x), nn.functional.linear(x, weight, base.bias))
        vectors = layer.cdd_adapters["default"].vectors
        assert torch.autograd.gradcheck(lambda x, *_: model(x), (x, *vectors), fast_mode=True)

        torch.testing.assert_close(model.merge_and_unload()[0].weight, weight)

    def test_toeplitz_block_size_represents_any_toeplitz_matrix(self):
        # the first entries of the circulant are the lags 0, 1, ..., the last ones the lags -1, -2, ...
        circulants = torch.arange(1.0, 7.0).reshape(1, 1, 6)
        expected = torch.tensor([[1.0, 6.0, 5.0, 4.0], [2.0, 1.0, 6.0, 5.0], [3.0, 2.0, 1.0, 6.0]])
        torch.testing.assert_close(block_circulant_product(torch.eye(4), circulants, rows=3).T, expected)

    def test_change_is_zero_at_first_and_all_vectors_train(self):
        torch.manual_seed(0)
        base = nn.Linear(8, 6)
        x = torch.randn(5, 8)
        expected = base(x)
        model = get_peft_model(nn.Sequential(base), CDDConfig(target_modules=["0"]))
        assert torch.equal(model(x), expected)

        adapter = model.base_model.model[0].cdd_adapters["default"]
        before = [vector.detach().clone() for vector in adapter.vectors]
        optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-3)
        for _ in range(2):
            model(x).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        assert all(not torch.equal(vector, old) for vector, old in zip(adapter.vectors, before))

    @pytest.mark.parametrize("n_factors", [3, 7])
    def test_random_initialization_keeps_the_variance(self, n_factors):
        torch.manual_seed(0)
        adapter = CDDAdapter(512, 256, CDDConfig(n_factors=n_factors, init_weights=False))
        variance = adapter(torch.randn(64, 512)).var().item()
        assert 0.8 < variance < 1.25

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("autocast_adapter_dtype", [True, False])
    def test_half_precision(self, dtype, autocast_adapter_dtype):
        # There is no FFT in half precision on CPU
        torch.manual_seed(0)
        config = CDDConfig(target_modules=["0"], init_weights=False)
        model = nn.Sequential(nn.Linear(8, 8)).to(dtype)
        model = get_peft_model(model, config, autocast_adapter_dtype=autocast_adapter_dtype)
        layer = model.base_model.model[0]
        x = torch.randn(3, 8).to(dtype)
        output = model(x)
        assert output.dtype == dtype
        output.float().sum().backward()
        assert all(vector.grad.isfinite().all() for vector in layer.cdd_adapters["default"].vectors)

        weight = layer.base_layer.weight.float() + layer.get_delta_weight("default").float()
        expected = nn.functional.linear(x.float(), weight, layer.base_layer.bias.float())
        torch.testing.assert_close(output.float(), expected, atol=0.05, rtol=0.02)

    @pytest.mark.parametrize("shape", [(0, 8), (2, 0, 8)])
    def test_empty_batch(self, shape):
        # as experts get that no token was sent to
        model = get_peft_model(nn.Sequential(nn.Linear(8, 6)), CDDConfig(target_modules=["0"], init_weights=False))
        assert model(torch.zeros(shape)).shape == (*shape[:-1], 6)

    def test_dropout_in_training_only(self):
        torch.manual_seed(0)
        model = get_peft_model(
            nn.Sequential(nn.Linear(64, 8)), CDDConfig(target_modules=["0"], init_weights=False, dropout=0.5)
        )
        x = torch.randn(4, 64)
        assert not torch.allclose(model.train()(x), model(x))
        layer = model.base_model.model[0]
        expected = layer.base_layer(x) + x @ layer.get_delta_weight("default").T
        torch.testing.assert_close(model.eval()(x), expected)

    def test_checkpoint_holds_the_vectors_in_the_order_of_the_product(self, tmp_path):
        model = get_peft_model(nn.Sequential(nn.Linear(12, 4)), CDDConfig(target_modules=["0"], init_weights=False))
        model.save_pretrained(tmp_path)
        state_dict = load_file(tmp_path / "adapter_model.safetensors")
        assert {key: tuple(vector.shape) for key, vector in state_dict.items()} == {
            "base_model.model.0.cdd_adapters.vectors.0": (4,),
            "base_model.model.0.cdd_adapters.vectors.1": (1, 3, 4),
            "base_model.model.0.cdd_adapters.vectors.2": (12,),
        }
        x = torch.randn(3, 12)
        loaded = PeftModel.from_pretrained(nn.Sequential(model.base_model.model[0].base_layer), tmp_path)
        torch.testing.assert_close(loaded(x), model(x))

    @pytest.mark.parametrize(
        "kwargs, match",
        [
            ({"n_factors": 4}, "`n_factors` must be odd and at least 3"),
            ({"n_factors": 1}, "`n_factors` must be odd and at least 3"),
            ({"block_size": 0}, "`block_size` must be a positive integer"),
            ({"block_size": "max"}, "`block_size` must be a positive integer"),
            ({"alpha": float("nan")}, "`alpha` must be finite"),
            ({"dropout": 1.0}, "`dropout` must be at least 0 and less than 1"),
            ({"factor_scale": 0.0}, "`factor_scale` must be positive"),
            ({"bias": "lora_only"}, "`bias` must be 'none', 'all' or 'cdd_only'"),
        ],
    )
    def test_config_validation(self, kwargs, match):
        with pytest.raises(ValueError, match=match):
            CDDConfig(**kwargs)

    def test_too_large_block_size_raises(self):
        with pytest.raises(ValueError, match="`block_size` must be at most in_features \\+ out_features - 1 = 13"):
            get_peft_model(nn.Sequential(nn.Linear(8, 6)), CDDConfig(target_modules=["0"], block_size=14))

    def test_unsupported_layer_raises(self):
        with pytest.raises(TypeError, match="is not supported"):
            get_peft_model(nn.Sequential(nn.Conv1d(3, 3, 1)), CDDConfig(target_modules=["0"]))
