"""Matrices of experts that one parameter holds, and a change for each of them."""

import copy

import pytest

from structmat.torch import StackedCDDAdapter
from structmat.torch._stacked_weight import call_changed, laid_out, stack_of
from tests.torch.common import torch

pytest.importorskip("transformers", minversion="5")

EXPERTS, HIDDEN, INNER = 4, 16, 24
NAMES = ("gate_up_proj", "down_proj")
LOOPS = ("eager", "grouped_mm", "batched_mm")


def experts(kind, dtype=torch.float64, loop="eager"):
    """The experts of a block, with random frozen matrices."""
    if kind == "GPT-OSS":  # transposed, and with biases
        from transformers.models.gpt_oss import GptOssConfig as Config
        from transformers.models.gpt_oss.modeling_gpt_oss import GptOssExperts as Experts
    else:
        from transformers.models.mixtral import MixtralConfig as Config
        from transformers.models.mixtral.modeling_mixtral import MixtralExperts as Experts
    config = Config(hidden_size=HIDDEN, intermediate_size=INNER, num_local_experts=EXPERTS)
    config._experts_implementation = loop
    module = Experts(config)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module.to(dtype).requires_grad_(requires_grad=False)


def routed(dtype=torch.float64, tokens=9):
    """Tokens, two experts for each, the last of which gets none, and their weights."""
    x = torch.randn(tokens, HIDDEN, dtype=dtype, requires_grad=True)
    chosen = torch.stack([torch.randperm(EXPERTS - 1)[:2] for _ in range(tokens)])
    return x, chosen, torch.rand(tokens, 2, dtype=dtype)


def changes_of(module, count=1, **options):
    """So many random changes of each parameter."""
    found = {}
    for name in NAMES:
        stack = stack_of(module, name, "test")
        sizes = stack.n_experts, stack.in_features, stack.out_features
        options = {"dtype": torch.float64, "init": "normal", "alpha": 0.7, **options}
        found[name] = [StackedCDDAdapter(*sizes, **options) for _ in range(count)]
    return found


def written_out(module, changes, *given):
    """The outputs of a module in which dense sums stand, by its loop over the experts."""
    plain = copy.deepcopy(module)
    plain.config._experts_implementation = "eager"
    sums = {}
    for name, adapters in changes.items():
        dense = sum(laid_out(stack_of(plain, name, "test"), each.operator().to_dense()) for each in adapters)
        sums[name] = getattr(plain, name) + dense
    return torch.func.functional_call(plain, sums, given)


def trained(changes):
    return [vector for adapters in changes.values() for each in adapters for vector in each.parameters()]


@pytest.mark.parametrize("kind", ["Mixtral", "GPT-OSS"])
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(("tokens", "options"), [(9, {"count": 2, "n_factors": 5}), (70, {}), (1, {"block_size": 5})])
def test_outputs_and_gradients_are_those_of_dense_sums(kind, loop, tokens, options):
    module = experts(kind, loop=loop)
    changes = changes_of(module, **options)
    given = routed(tokens=tokens)
    outputs, wanted = call_changed(module, changes, *given), written_out(module, changes, *given)
    torch.testing.assert_close(outputs, wanted, rtol=1e-11, atol=1e-11)
    weights = torch.randn_like(outputs)
    inputs = [given[0], *trained(changes)]
    found = torch.autograd.grad(outputs, inputs, weights)
    for one, other in zip(found, torch.autograd.grad(wanted, inputs, weights), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    assert not vars(module).keys() & changes.keys()  # nothing stands in for a parameter any more
