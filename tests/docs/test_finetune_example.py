"""The example `docs/examples/finetune_minilm.py`, on a tiny encoder with random weights."""

import csv
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers")
pytest.importorskip("peft")
pytest.importorskip("cyclopts")
torch = pytest.importorskip("torch")

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
METHODS = ["head", "lora", "full", "adalora", "fourierft", "c3a", "c3a-corrected", "cdd", "cdd-peft"]
FEW = ("--task", "banking77", "--rows", "48", "--test-rows", "20", "--epochs", "2", "--batch", "8")
USUAL = ("--places", "query-value", "--rank", "8")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # of libraries that this one only meets here
]


@pytest.fixture(scope="module")
def example():
    sys.path.insert(0, str(EXAMPLES))
    try:
        yield importlib.import_module("finetune_minilm")
    finally:
        sys.path.remove(str(EXAMPLES))
        for name in [name for name in sys.modules if name.partition(".")[0] in {"finetune", "finetune_minilm"}]:
            del sys.modules[name]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz?"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=tokens[1]))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    ends = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(vocabulary), **sizes)).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def out(example, model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    command = ["--model", model, *FEW, *USUAL, "--methods", ",".join(METHODS), "--seeds", "0", "--out", str(folder)]
    assert example.main(command) == 0
    return folder


def test_files_of_every_method(out):
    with (out / "results.csv").open(newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert set(rows) == set(METHODS)
    accuracies = [float(row["accuracy"]) for row in rows.values()]
    assert accuracies == sorted(accuracies, reverse=True)
    for row in rows.values():
        share = float(row["accuracy"])
        assert float(row["accuracy_error"]) == pytest.approx((share * (1 - share) / 20) ** 0.5)  # 20 test rows
    assert (out / "results.md").read_text().count("\n| banking77 |") == len(METHODS)
    assert (out / "learning.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((out / "runs").iterdir())) == len(METHODS)  # and no partial file
    layers, size = 4, 32
    expected = {"head": 0, "lora": layers * 2 * 8 * size, "fourierft": layers * 3 * size, "c3a": layers * size}
    expected |= dict.fromkeys(("cdd", "cdd-peft"), layers * 3 * size)
    for method, number in expected.items():
        assert method not in rows or int(rows[method]["adapter_parameters"]) == number
    for method, row in rows.items():
        assert 0 <= float(row["accuracy"]) <= 1
        assert float(row["seconds_per_step"]) > 0
        assert float(row["bytes_for_backward"]) > 0
        parameters, stored = int(row["adapter_parameters"]), int(row["adapter_file_bytes"])
        assert stored >= 3.5 * parameters or method == "adalora", method  # which stores the ranks that are left
    assert float(rows["lora"]["bytes_for_backward"]) < float(rows["full"]["bytes_for_backward"])


def runs(method, accuracies, parameters, task="t"):
    size = 8 if method == "lora" else None
    common = {"task": task, "method": method, "size": size, "adapter_parameters": parameters, "tested": 100}
    return [common | {"seed": seed, "accuracy": accuracy} for seed, accuracy in enumerate(accuracies)]


def test_a_line_says_how_far_cdd_is_from_the_others(example):
    comparison = sys.modules["finetune.report"].comparison
    results = runs("lora", [0.6], 4000) + runs("cdd", [0.5], 1000) + runs("head", [0.35], 0)
    results += runs("lora", [1.0], 1, "without")
    # the roots of 0.5 * 0.5 / 100 + 0.6 * 0.4 / 100 and 0.5 * 0.5 / 100 + 0.35 * 0.65 / 100; above two of them is sure
    text = (
        "t: CDD is 10.0 ± 7.0 points below LoRA r = 8 with 0.25 of its parameters, no sure difference; "
        "15.0 ± 6.9 points above head only."
    )
    assert comparison(results) == [text]


def test_seeds_are_compared_one_by_one(example):
    report = sys.modules["finetune.report"]
    results = runs("cdd", [0.50, 0.70, 0.62], 1000) + runs("lora", [0.51, 0.69, 0.64], 4000)
    # differences of -1, 1 and -2 points; these and the accuracies of CDD have deviations of 1.53 and 10.07
    text = "t: CDD is 0.7 ± 0.9 points below LoRA r = 8 with 0.25 of its parameters, no sure difference."
    assert report.comparison(results) == [text]
    extra = dict.fromkeys(("lr", "rows", "seconds_per_step", "bytes_for_backward", "peak_bytes", "seconds"), 1.0)
    lines = report.summarise([result | extra | {"adapter_file_bytes": 1} for result in results])
    assert lines[1]["accuracy_error"] == pytest.approx(0.1007 / 3**0.5, rel=1e-3)


def test_both_libraries_train_cdd_alike(example, model, out):
    options = "--methods cdd --library peft --lr cdd=0.03 --seeds 0"
    command = ["--model", model, *FEW, *USUAL, *options.split()]
    assert example.main([*command, "--out", str(out)]) == 0
    with (out / "results.csv").open(newline="") as file:
        assert [row["method"] for row in csv.DictReader(file)] == ["cdd-peft"]


def test_a_log_says_how_far_a_run_is(example, model, tmp_path, capsys):
    command = ["--model", model, *FEW, "--methods", "cdd", "--seeds", "0", "--out", str(tmp_path)]
    assert example.main(command) == 0
    line = re.compile(r"-cdd-.*: (\d+) %, (?:loss [\d.]+|testing), about \d+ s left$", re.MULTILINE)
    shares = [int(share) for share in line.findall(capsys.readouterr().err)]
    assert len(shares) == 4
    assert all(low <= share < low + 15 for share, low in zip(shares, (20, 40, 60, 80), strict=True))


def test_the_quick_comparison_says_how_long_it_takes(example, model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(example, "load_task", lambda *_: ([], []))
    monkeypatch.setattr(example._Session, "do", lambda *_: sys.exit(3))
    for options, is_told in ([], True), (["--seeds", "0,1"], False):
        with pytest.raises(SystemExit):
            example.main(["--quick", "--model", model, *options, "--out", str(tmp_path)])
        assert ("--quick takes about three minutes on two cores" in capsys.readouterr().err) is is_told
    example.main(["--help"])
    assert "With --quick that takes about three minutes" in " ".join(capsys.readouterr().out.split())


def test_the_command_says_at_once_what_it_loads_and_ctrl_c_ends_it_in_one_line(tmp_path):
    (tmp_path / "torch.py").write_text("import signal\nsignal.raise_signal(signal.SIGINT)\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, str(EXAMPLES / "finetune_minilm.py"), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    lines = ["finetune_minilm: loading PyTorch and transformers ...", "finetune_minilm: interrupted"]
    assert (done.returncode, done.stderr.splitlines()) == (130, lines)


def test_done_runs_are_skipped_and_a_missing_one_is_done_again_alike(example, model, out, capsys):
    path = next((out / "runs").glob("*-lora-*-seed0.json"))
    before = json.loads(path.read_text())
    path.unlink()
    others = {p: p.stat().st_mtime_ns for p in (out / "runs").iterdir()}
    command = ["--model", model, *FEW, *USUAL, "--methods", "lora,full", "--seeds", "0", "--out", str(out)]
    assert example.main(command) == 0
    assert "1 of 2 runs are done already" in capsys.readouterr().err
    assert all(p.stat().st_mtime_ns == t for p, t in others.items())
    after = json.loads(path.read_text())
    timed = {"seconds", "seconds_per_step", "peak_bytes"}
    assert {k: v for k, v in after.items() if k not in timed} == {k: v for k, v in before.items() if k not in timed}


def test_the_rate_is_chosen_on_rows_held_back(example, model, tmp_path):
    options = "--methods lora --lr lora=1e-9,0.01 --seeds 3"
    command = ["--model", model, *FEW, *options.split(), "--out", str(tmp_path)]
    assert example.main(command) == 0
    runs = [json.loads(p.read_text()) for p in (tmp_path / "runs").iterdir()]
    sweep = {run["lr"]: run["accuracy"] for run in runs if run["sweep"]}
    (final,) = (run for run in runs if not run["sweep"])
    assert set(sweep) == {1e-9, 0.01}
    assert sweep[final["lr"]] == max(sweep.values())
    assert {run["steps"] for run in runs if run["sweep"]} == {2 * 5}  # 38 of the 48 rows, in batches of 8


def test_other_tasks_read_their_published_files(example, model, tmp_path, capsys):
    lines = ["it's \"so good\t3\tid1", "no\t2,3\tid2", "bad\t2\tid3", "fine\t2\tid4"]
    for name in ("train.tsv", "test.tsv"):
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows = 'sentence\tis_counterfactual\n"I wish ""it"" were\tso"\t1\nIt is\t0\n'
    for name in ("EN-ext_train.tsv", "EN-ext_test.tsv"):
        (tmp_path / name).write_text(rows, encoding="utf-8")
    (tmp_path / "cola_train.tsv").write_text('a\t1\t\tsay "so\nb\t0\t*\tso say\n', encoding="utf-8")
    for name in ("cola_in_domain_dev.tsv", "cola_out_of_domain_dev.tsv"):
        (tmp_path / name).write_text("a\t0\t*\tis it\n", encoding="utf-8")
    pairs = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tit is\tso it is\n0\t7\t9\tit is\tno\n"
    for name in ("mrpc_train.txt", "mrpc_test.txt"):
        (tmp_path / name).write_text(pairs, encoding="utf-8-sig")
    command = ["--model", model, "--methods", "head", "--seeds", "0", "--data", str(tmp_path), "--out", str(tmp_path)]
    assert example.main([*command, "--task", "goemotions,counterfactual"]) == 0
    names = sorted(path.name.partition("rows-")[0] for path in (tmp_path / "runs").iterdir())
    assert names == ["counterfactual-head-intermediate-2", "goemotions-head-intermediate-3"]
    load = sys.modules["finetune.data"].load_task
    tokenizer = sys.modules["finetune.encoder"].load_tokenizer(model)
    training, test = load("cola", tmp_path, tokenizer, 64)
    assert (sorted(training.labels.tolist()), test.labels.tolist()) == ([0, 1], [0, 0])
    training, _ = load("mrpc", tmp_path, tokenizer, 64)
    assert sorted(len(row) for row in training.tokens) == [len("it isno"), len("it isso it is")]
    for name in ("train_5500.label", "TREC_10.label"):
        (tmp_path / name).write_bytes(b"LOC:city Is it: so ?\nHUM:ind no caf\xe9\n")
    training, _ = load("trec", tmp_path, tokenizer, 64)
    found = sorted(zip(training.labels.tolist(), map(len, training.tokens), strict=True))
    assert found == [(0, len("no caf?") + 2), (1, len("Is it: so ?") + 2)]
    (tmp_path / "train.tsv").rename(tmp_path / "EN-ext_train.tsv")
    assert example.main([*command, "--task", "counterfactual"]) == 1
    assert "must begin with the columns" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (["--methods", "loora"], 1, "--methods: unknown 'loora'; known are head, lora"),
        (["--task", "bank"], 1, "--task: unknown 'bank'; known are banking77"),
        (["--model", "./nothing"], 1, "--model ./nothing: there is no such folder"),
        (["--model", str(EXAMPLES)], 1, "no tokenizer can be loaded"),
        (["--task", "counterfactual"], 1, "there is no EN-ext_train.tsv"),
        (["--lr", "lora"], 1, "must be METHOD=RATE"),
        (["--lr", "lora=0.1,nan"], 1, "must have positive rates"),
        (["--lr", "lora=fast"], 1, "'fast' is no number"),
        (["--head-lr", "nan"], 1, "--head-lr: must be a positive number, got nan"),
        (["--device", "zzz"], 1, "--device zzz: "),
        (["--device", "meta"], 1, "--device meta: "),
        (["--data", "nowhere"], 1, "--data nowhere: there is no such folder"),
        (["--out", f"{__file__}/results"], 1, f"--out {__file__}/results: {__file__} is no folder"),
        (["--seeds", "one"], 1, "'one' is no number"),
        (["--rows", "0"], 2, "--rows"),
        (["--row", "10"], 2, "--row"),
    ],
)
def test_errors_are_one_line(example, model, tmp_path, monkeypatch, capsys, options, status, words):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    known = [] if "--model" in options else ["--model", model]
    assert example.main([*known, *options]) == status
    shown = capsys.readouterr()
    assert words in shown.err
    assert shown.err.startswith("finetune_minilm: error: ")
    assert shown.err.count("\n") == 1
    assert shown.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("method", "size", "query_value", "all_linear"),
    [
        ("lora", 2, 4 * 2 * 64, 8 * 2 * 64 + 4 * 2 * 80),
        ("adalora", 2, 4 * 3 * 65, 8 * 3 * 65 + 4 * 3 * 81),
        ("cdd", 5, 4 * 5 * 32, None),
        ("cdd-shared", 3, 4 * 64 + 2 * 32, None),  # of two layers each, query and value
        ("cdd-blocks", 16, 4 * (64 + 4 * 16), 8 * (64 + 4 * 16) + 4 * (80 + 6 * 16)),
        ("c3a-corrected", 16, 4 * 4 * 16, 8 * 4 * 16 + 4 * 6 * 16),
        ("fourierft", 40, 4 * 40, 12 * 40),
    ],
)
def test_sizes_and_places(example, model, method, size, query_value, all_linear):
    train = sys.modules["finetune.train"]
    settings = train.Settings(model, 1, 2, 0.01, 64, None, "cpu", autocast=True)
    rows = sys.modules["finetune.data"].Rows([torch.arange(4, 9)] * 8, torch.arange(8) % 2)
    for places, parameters in (("query-value", query_value), ("all-linear", all_linear)):
        run = train.Run("task", method, 0.01, 0, len(rows), size=size, places=places)
        built, prepared = train.prepare(run, settings, len(rows), 2)
        trained = {name: p.clone() for name, p in built.encoder.named_parameters() if p.requires_grad}
        assert parameters in {None, sum(p.numel() for p in trained.values())}
        train.fit(built, prepared, run, settings, rows=rows, embeddings=None, advance=lambda *_: None)
        assert any(not torch.equal(p, trained[name]) for name, p in built.encoder.named_parameters() if p.requires_grad)
        assert all(p.dtype == torch.float32 for p in built.parameters())


def test_lora_has_the_rank_of_nearest_size_unless_one_is_given(example, model):
    methods, encoder = sys.modules["finetune.methods"], sys.modules["finetune.encoder"]
    # 3 * 32 beside 2 * 32 r; 32 + 48 + 2 * 32 beside (32 + 48) r; both kinds
    ranks = {places: methods.nearest_rank(encoder.load_encoder(model), places) for places in methods.PLACES}
    assert ranks == {"query-value": 2, "intermediate": 2, "all-linear": 2}


def test_the_corrected_gradient_of_c3a_is_that_of_its_matrix(example):
    from peft.tuners.c3a.utils import BlockCircularConvolution

    corrected = sys.modules["finetune.methods"]._CorrectedConvolution
    x = torch.randn(5, 12, dtype=torch.double, requires_grad=True)
    w = torch.randn(2, 3, 4, dtype=torch.double, requires_grad=True)
    assert torch.equal(corrected.apply(x, w), BlockCircularConvolution.apply(x, w))
    assert torch.autograd.gradcheck(corrected.apply, (x, w))
