"""`benchmarks/few_parameters.py`: that its methods train, what it counts as operations, who is on the frontier."""

import numpy as np
import pytest

pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries that this one only meets here


pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("transformers")


def test_every_method_begins_near_the_frozen_encoder_and_learns(modules):
    import torch
    from transformers import BertConfig, BertModel

    found, plan = modules("_few_methods"), modules("_few_plan")
    config = BertConfig(vocab_size=20, hidden_size=384, num_hidden_layers=1, num_attention_heads=4)
    config.intermediate_size = 384
    torch.manual_seed(0)
    frozen = BertModel(config, add_pooling_layer=False).eval()
    tokens = torch.arange(1, 13).reshape(2, 6)
    expected = frozen(tokens).last_hidden_state
    target = torch.randn_like(expected)
    everything = (*plan.SIZED, plan.FOUR_BITS)
    assert {sized.method for sized in everything} - set(found.METHODS) == {"cdd", "lora"}
    for sized in everything:
        if sized.method not in found.METHODS:
            continue
        encoder = BertModel(config, add_pooling_layer=False).eval()
        encoder.load_state_dict(frozen.state_dict())
        rate = found.METHODS[sized.method].lr
        prepared = found.METHODS[sized.method].prepare(encoder, found.Plan(rate, 10, sized.size, sized.places))
        optimizer = torch.optim.AdamW(prepared.groups)
        outputs = []
        for _ in range(3):
            outputs.append(prepared.encoder.eval()(tokens).last_hidden_state)
            optimizer.zero_grad()
            (outputs[-1] - target).square().mean().backward()
            optimizer.step()
        gap = (outputs[0] - expected).norm() / expected.norm()
        # UniLoRA and VB-LoRA have no zero among their first factors.
        assert gap < (0.05 if sized.method in {"unilora", "vblora"} else 1e-5), sized
        losses = [float((output - target).square().mean()) for output in outputs]
        assert losses[2] < losses[0], (sized, losses)
        assert prepared.saved(), sized
        if sized.method == "cdd-4-bits":
            for steps, most in ((9, 384), (10, 15)):
                prepared.after_step(steps)
                counts = {vector.unique().numel() for vector in prepared.groups[0]["params"]}
                assert max(counts) <= most
                assert (max(counts) > 15) == (steps == 9)


def test_operations_are_those_counted_by_hand(modules):
    import torch

    counted = modules("_few_costs").Operations
    x, w = torch.ones(3, 8), torch.ones(5, 8)
    with counted() as found:
        torch.nn.functional.linear(x, w)
    assert found.count == 2 * 3 * 5 * 8
    with counted() as found:
        torch.fft.irfft(torch.fft.rfft(x), 8)
    assert found.count == 2 * 3 * 2.5 * 8 * 3
    with counted() as found:
        torch.fft.rfft(x)[..., :4] * torch.ones(4, dtype=torch.complex64)
    assert found.count == 3 * 2.5 * 8 * 3 + 6 * 12
    with counted() as found:
        (x * 2).reshape(8, 3).T.clone()
    assert found.count == 24


def test_the_frontier_is_of_the_tasks_that_all_methods_have_done(modules):
    report, plan = modules("_few_report"), modules("_few_plan")
    made = {"cdd": (100, 70), "lora": (150, 71), "road": (90, 69.5), "vera": (100, 69.9), "boft": (200, 70.5)}
    result, found = modules("_fair_report").Result, []
    for i, sized in enumerate(plan.SIZED):
        parameters, score = made.get(sized.method, (300, 60))
        for task in plan.TASKS_OF_THE_STUDY[: 3 if i else 4]:
            seeds = score + np.array([0, 1, 0, -1, 0]) + (task == "sst2")
            found.append(result(sized.on(task), "0.01", parameters, seeds, 1.0))
    tasks, methods = report.standings(found)
    assert tasks == list(plan.TASKS_OF_THE_STUDY[:3])
    assert [m.sized.method for m in report.on_frontier(methods)] == ["road", "cdd", "lora"]
    ours, lora = (next(m for m in methods if m.sized.method == name) for name in ("cdd", "lora"))
    seeds, over_tasks = lora.minus(ours)
    assert (seeds.mean, over_tasks.mean) == pytest.approx((1, 1))
    assert seeds.half == pytest.approx(0, abs=1e-9)
    lines = report.scores_table(tasks, methods, {}).splitlines()
    cells = {line.split("|")[1].strip(): [c.strip() for c in line.split("|")[2:-1]] for line in lines[2:]}
    assert cells["LoRA r = 2"][:8] == ["150", "71.0", "72.0", "71.0", "71.33", "+1.00", "± 0.00", "± 0.00"]
    assert "IA3, its own layers" in cells
    assert "IA3, query and value layers" in cells
    owes = report.without_each_task(tasks, methods)[1].splitlines()[2:]
    assert [line.split("|")[1].strip() for line in owes] == ["GoEmotions", "SST-2", "BANKING77"]
    assert {line.split("|", 2)[2] for line in owes[::2]} == {" RoAd 4; CDD, 3 factors; LoRA r = 2 | 70.50 | 3 of 15 |"}
    assert owes[1].endswith("| 70.00 | 3 of 15 |")
    assert report.standings([]) == ([], [])
    tasks, methods = report.standings(found[:5])  # four tasks of one method, one of the next
    assert (tasks, len(methods)) == (["goemotions"], 2)
    assert methods[0].minus(methods[1])[1] is None
    assert report.without_each_task(tasks, methods) == []


def test_four_bits_are_compared_on_the_tasks_that_have_been_run_with_them(modules):
    report, plan = modules("_few_report"), modules("_few_plan")
    result = modules("_fair_report").Result

    def run(sized, task, score):
        return result(sized.on(task), "0.1", 13824, score + np.array([0.0, 1, 0, -1, 0]), 1.0)

    found = [run(report.CDD, task, 70) for task in ("goemotions", "sst2", "trec")]
    assert report.in_four_bits(found, {}) == ""
    found.append(run(plan.FOUR_BITS, "goemotions", 69.5))
    assert report.standings(found)[0] == ["goemotions", "sst2", "trec"]
    text = " ".join(report.in_four_bits(found, {}).split())
    assert "69.50 where it has 70.00 as trained (-0.50 ± 0.00 over the seeds), on GoEmotions." in text
    found.append(run(plan.FOUR_BITS, "trec", 70.5))
    text = " ".join(report.in_four_bits(found, {}).split())
    assert "70.00 where it has 70.00 as trained" in text
    assert "± 0.00 over the seeds and ± 6.35 over the tasks), on GoEmotions, TREC question types." in text
    assert [case.method for case in plan.cases()][-7:] == ["boft"] + 6 * ["cdd-4-bits"]
