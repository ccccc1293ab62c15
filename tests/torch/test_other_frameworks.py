"""Models of torch and transformers that look into their layers."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest

torch = pytest.importorskip("torch")

from torch import nn

from structmat.torch import (
    CDDLinear,
    adapt,
    merge_adapters,
    remove_adapters,
)
from tests.torch.common import assert_same_state, dense, fill, state
from tests.torch.models import names


class TestOtherFrameworks:
    @pytest.mark.parametrize("targets", ["all-linear", ["0.linear2"], ["layers.1.linear1"]])
    @pytest.mark.parametrize("padded", [False, True])
    @pytest.mark.parametrize("norm_first", [False, True])
    def test_fast_path_of_transformer_encoders(self, targets, padded, norm_first):
        """In evaluation torch reads weights without calling layers, and makes nested tensors of padded batches."""
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, norm_first=norm_first)
        encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=not norm_first)
        plain = copy.deepcopy(encoder).eval()
        adapt(encoder, targets)
        fill(encoder)
        x, mask = torch.randn(3, 5, 8), None
        if padded:
            mask = torch.zeros(3, 5, dtype=torch.bool)
            mask[0, 3:] = True
        real = slice(None) if mask is None else ~mask
        with warnings.catch_warnings(), torch.no_grad():
            warnings.filterwarnings("ignore", "The PyTorch API of nested tensors", UserWarning)
            trained = encoder.train()(x, src_key_padding_mask=mask)[real]
            fast = encoder.eval()(x, src_key_padding_mask=mask)[real]
            torch.testing.assert_close(fast, trained, atol=1e-5, rtol=1e-5)
            before = plain(x, src_key_padding_mask=mask)[real]
            assert not torch.allclose(before, fast, atol=1e-2)
            remove_adapters(encoder)
            assert torch.equal(encoder(x, src_key_padding_mask=mask)[real], before)

    @pytest.mark.parametrize("targets", ["all-linear", ["0.linear2"], ["1.linear1"]])
    @pytest.mark.parametrize("by_name", [False, True])
    def test_gradients_of_padded_batches_in_evaluation(self, targets, by_name):
        """Torch looks at the first layer's weights alone, and its attention refuses nested tensors with gradients."""
        torch.manual_seed(0)
        encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), 3)
        adapt(encoder, targets)
        fill(encoder)
        x, mask = torch.randn(3, 5, 8), torch.zeros(3, 5, dtype=torch.bool)
        mask[0, 3:] = True
        outputs, gradients = [], []
        for each in (encoder.train(), copy.deepcopy(encoder).eval()):
            y = each(src=x, src_key_padding_mask=mask) if by_name else each(x, src_key_padding_mask=mask)
            y[~mask].square().sum().backward()
            outputs.append(y[~mask])
            gradients.append([p.grad for p in each.parameters() if p.requires_grad])
        torch.testing.assert_close(*outputs)
        torch.testing.assert_close(*gradients)
        assert not x.requires_grad
        remove_adapters(encoder)
        assert b"structmat" not in pickle.dumps(encoder)

    def test_layers_that_are_wrapped_by_hand_or_copied_are_called_too(self):
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
        layer.linear1 = CDDLinear.from_linear(layer.linear1)
        fill(layer)
        x = torch.randn(3, 5, 8)
        expected = layer(x)  # with gradients there is no fast path
        for twin in (layer, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            with torch.no_grad():
                torch.testing.assert_close(twin(x), expected)

    @pytest.mark.parametrize("name", ["dt_proj", "out_proj"])
    @pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # which PEFT reads
    def test_projections_of_mamba_that_are_not_called(self, name):
        transformers = pytest.importorskip("transformers")
        config = transformers.MambaConfig(vocab_size=8, hidden_size=4, state_size=2, num_hidden_layers=1)
        model = transformers.MambaModel(config)
        with pytest.raises(TypeError, match=f"{name}, whose weight MambaMixer reads without calling it"):
            adapt(model, [name])
        assert [path.rpartition(".")[2] for path in names(adapt(model))] == ["in_proj", "x_proj"]
        peft = pytest.importorskip("peft")
        from structmat.peft import CDDConfig

        with pytest.raises(TypeError, match="whose weight MambaMixer reads without calling it; name it in exclude"):
            peft.get_peft_model(transformers.MambaModel(config), CDDConfig(target_modules=[name]))
        model = peft.get_peft_model(transformers.MambaModel(config), CDDConfig(target_modules="all-linear"))
        assert sorted(path.rpartition(".")[2] for path in model.targeted_module_names) == ["in_proj", "x_proj"]

    def test_projections_of_attention_that_are_never_called(self):
        model = nn.TransformerEncoderLayer(8, 2, 16)
        before = state(model)
        with pytest.raises(TypeError, match=r"self_attn\.out_proj, whose weight MultiheadAttention reads"):
            adapt(model, ["linear1", "out_proj"])
        assert_same_state(before, model)
        assert names(adapt(model)) == ["linear1", "linear2"]

    def test_gpt2(self):
        transformers = pytest.importorskip("transformers")
        config = transformers.GPT2Config(
            n_layer=2, n_head=2, n_embd=8, vocab_size=20, n_positions=16, bos_token_id=0, eos_token_id=0
        )
        torch.manual_seed(0)
        model = transformers.GPT2LMHeadModel(config).eval()
        tokens = torch.randint(0, 20, (2, 6))
        before = model(tokens).logits
        summary = adapt(model, exclude=["lm_head"])
        assert len(summary.layers) == 8
        assert (24, 8) in {layer.shape for layer in summary.layers}
        assert torch.equal(model(tokens).logits, before)
        fill(model)
        loss = model(tokens, labels=tokens).loss
        loss.backward()
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
        outputs = model(tokens).logits
        c_attn = model.transformer.h[0].attn.c_attn
        W = c_attn.base.weight.detach().T.double() + dense(c_attn.adapters["default"].factors, 24, 8)
        torch.testing.assert_close(c_attn.to_linear().weight.double(), W, atol=1e-6, rtol=1e-5)
        merge_adapters(model)
        torch.testing.assert_close(model(tokens).logits, outputs, atol=1e-4, rtol=1e-4)
        remove_adapters(model)
        assert torch.equal(model(tokens).logits, before)
