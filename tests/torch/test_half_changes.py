"""After an error, or Ctrl-C at any moment, models and folders are bit for bit as before."""

from __future__ import annotations

import contextlib
import itertools
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors.torch")

from torch import nn

import structmat
from structmat.torch import AdapterBank, adapt, load_adapter, remove_adapters, save_adapter, using_adapter
from tests.torch.common import fill

PACKAGE = str(Path(structmat.__file__).parent)
"""The folder of the package: one of the same name may hold the environment, with torch in it."""


class Model(nn.Module):
    """Linear layers, an encoder with a fast path, a head with statistics."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 4, batch_first=True), 1)
        self.body = nn.Linear(4, 3)
        self.head = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))

    def forward(self, x):
        return self.head(self.body(self.encoder(x).mean(1)))


def make(*, adapted=False):
    torch.manual_seed(0)
    model = Model().eval()
    if adapted:
        adapt(model, ["linear1", "body"], train=["head"])
        fill(model)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    model = make(adapted=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    for layer in (model.body, model.encoder.layers[0].linear1):
        layer.adapter.alpha = 2.0
    return save_adapter(model, tmp_path_factory.mktemp("folder"))


def picture(model, *, hooks=True):
    """All that tells whether a model is the same, bit for bit: objects by their identities, and what tensors hold."""

    def shown(value):
        if isinstance(value, dict):
            return [(key, id(each)) for key, each in value.items()]
        return [*map(id, value)] if isinstance(value, (list, set)) else id(value)

    objects = [
        (
            path,
            id(module),
            {
                name: shown(value)
                for name, value in vars(module).items()
                if not isinstance(value, float) and (hooks or "_hooks" not in name)
            },
        )
        for path, module in model.named_modules()
    ]
    numbers = [(path, getattr(module, "alpha", None)) for path, module in model.named_modules()]
    tensors = [
        (each.requires_grad, id(each.grad), each.dtype, each.detach().numpy().tobytes())
        for each in (*model.parameters(), *model.buffers())
    ]
    return objects, numbers, tensors


@contextlib.contextmanager
def interrupted(at, error=KeyboardInterrupt):
    """Raise an error when the package calls one of its functions for the n-th time."""
    count = 0

    def trace(frame, event, _):
        nonlocal count
        # Errors in the end of a generator expression, which is a call too, go nowhere.
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(PACKAGE) and not code.co_name.startswith("<"):
            count += 1
            if count == at:
                raise error

    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(None)


@contextlib.contextmanager
def failing_writes(at):
    """Let the n-th copy into a tensor fail, as where memory is short."""
    copy_, count = torch.Tensor.copy_, 0

    def fail(self, *args, **kwargs):
        nonlocal count
        count += 1
        if count == at:
            raise RuntimeError("out of memory")
        return copy_(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "copy_", fail)
        yield


def enter(model, folder):
    with using_adapter(model, folder):
        sys.settrace(None)  # interrupts come before the block alone


CHANGES = {
    "load_adapter of a plain model": (load_adapter, {}),
    "load_adapter of an adapted model": (load_adapter, {"adapted": True}),
    "using_adapter": (enter, {"adapted": True}),
    "adapt": (lambda model, _: adapt(model, ["linear1", "body"], train=["head"]), {}),
    "adapt again": (lambda model, _: adapt(model, ["linear2"]), {"adapted": True}),
    "merge": (lambda model, _: remove_adapters(model, merge=True), {"adapted": True}),
    "remove": (lambda model, _: remove_adapters(model), {"adapted": True}),
}


@pytest.mark.parametrize(("change", "options"), CHANGES.values(), ids=CHANGES)
@settings(max_examples=25, deadline=None)
@given(at=st.integers(1, 600))
def test_an_interrupted_change_leaves_the_model_as_it_was(folder, change, options, at):
    model = make(**options)
    before = picture(model)
    with contextlib.suppress(KeyboardInterrupt):
        with interrupted(at):
            change(model, folder)
        return
    assert picture(model) == before


@pytest.mark.parametrize(
    ("change", "adapted"),
    [(load_adapter, False), (load_adapter, True), (enter, True)],
    ids=["plain", "adapted", "using"],
)
def test_a_write_that_fails_takes_all_others_back(folder, change, adapted):
    for at in range(1, 14):
        model = make(adapted=adapted)
        before = picture(model)
        with failing_writes(at), pytest.raises(RuntimeError, match="out of memory"):
            change(model, folder)
        assert picture(model) == before


def merge(model):
    remove_adapters(model, merge=True)


def assign(model):
    other = {key: value.detach() + 1 for key, value in model.state_dict().items()}
    model.load_state_dict(other, assign=True)


def adapt_anew(model):
    remove_adapters(model)
    adapt(model, ["linear2"])


def load_another(model):
    with torch.no_grad():
        model.body.adapter.vectors[0] += 1
    model.body.adapter.alpha = 7.0
    model.head[1].running_mean.data = torch.ones(2)


@pytest.mark.parametrize(
    "change", [merge, remove_adapters, assign, adapt_anew, load_another, nn.Module.half, nn.Module.double, AdapterBank]
)
def test_whatever_happens_inside_of_using_adapter_is_undone(folder, change):
    model = make(adapted=True)
    before = picture(model, hooks=False)
    with using_adapter(model, folder):
        change(model)
        assert picture(model, hooks=False) != before
    assert picture(model, hooks=False) == before


def test_contexts_may_end_in_any_order(folder, tmp_path):
    model = make(adapted=True)
    others = [folder, save_adapter(model, tmp_path / "one"), tmp_path / "two"]
    fill(model)
    model.body.adapter.alpha = model.encoder.layers[0].linear1.adapter.alpha = 3.0
    save_adapter(model, others[2])
    fill(model)
    before = picture(model)
    for order in itertools.permutations(range(3)):
        contexts = [using_adapter(model, other) for other in others]
        for context in contexts:
            context.__enter__()
        served = picture(model)[2]
        for i in order:
            contexts[i].__exit__(None, None, None)
            # The last folder is served until its own context ends.
            assert (picture(model)[2] == served) == (2 not in order[: order.index(i) + 1])
        assert picture(model) == before


def test_what_cannot_come_back_is_an_error(folder):
    model = make(adapted=True)

    def serve(error=""):
        with using_adapter(model, folder), torch.no_grad():
            model.body.base.weight.add_(1)
            if error:
                raise ZeroDivisionError(error)

    with pytest.raises(RuntimeError, match=r"using_adapter: body.base.weight was written in place inside of the block"):
        serve()
    with pytest.raises(ZeroDivisionError):
        serve("an error of the block comes first")


# ---- folders


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


@pytest.mark.parametrize("settings_differ", [False, True])
@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("at", range(1, 9))
def test_a_save_that_fails_leaves_the_folder_as_it_was(tmp_path, monkeypatch, exists, settings_differ, at):
    model, folder = make(adapted=True), tmp_path / "adapter"
    if exists:
        save_adapter(model, folder)
    before = contents(folder)
    fill(model)
    for layer in (model.body, model.encoder.layers[0].linear1):
        layer.adapter.alpha = 5.0 if settings_differ else 1.0
    replace, count = Path.replace, 0

    def fail(self, target):
        nonlocal count
        count += 1
        if count == at:
            raise OSError("the disk is gone")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    try:
        save_adapter(model, folder, force=True)
    except OSError:
        assert contents(folder) == before
    else:
        assert count < at
        assert sorted(contents(folder)) == ["adapter_config.json", "adapter_model.safetensors"]
        assert contents(folder) != before
