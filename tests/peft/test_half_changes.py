"""After an error at any moment, models of PEFT are bit for bit as before."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from peft import get_peft_model
from torch import nn

from structmat.peft import CDDConfig, hotswap_adapter
from tests.peft import tiny
from tests.torch.test_half_changes import failing_writes, interrupted, picture

pytestmark = tiny.QUIET


def make(*, name: str = "default", broken: str = "", merged: bool = False) -> Any:
    """Two adapters of two layers before a head; the second layer of one may hold NaN."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2), nn.Linear(2, 2))
    options: dict[str, Any] = dict(target_modules=["0", "1"], init_weights=False)
    made = get_peft_model(model, CDDConfig(**options), name)
    made.add_adapter("other", CDDConfig(**options))
    if broken:
        with torch.no_grad():
            made.base_model.model[1].cdd_adapters[broken].vectors[0].fill_(torch.nan)
    if merged:
        made.merge_adapter()
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("folder")
    torch.manual_seed(1)
    config = CDDConfig(target_modules=["0", "1"], init_weights=False, alpha=2.0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2), nn.Linear(2, 2))
    get_peft_model(model, config).save_pretrained(path)
    return path


def add(model: Any, _: Any) -> None:
    model.add_adapter("third", CDDConfig(target_modules=["1"], modules_to_save=["2"]))


CHANGES: dict[str, tuple[Any, dict[str, Any]]] = {
    "hotswap": (hotswap_adapter, {}),
    "add_adapter": (add, {}),
    "merge_adapter": (lambda model, _: model.merge_adapter(["default", "other"]), {}),
    "unmerge_adapter": (lambda model, _: model.unmerge_adapter(), {"merged": True}),
    "merge_and_unload": (lambda model, _: model.merge_and_unload(), {}),
}


@pytest.mark.parametrize(("change", "options"), CHANGES.values(), ids=CHANGES)
@settings(max_examples=20, deadline=None)
@given(at=st.integers(1, 400))
def test_an_interrupted_change_leaves_the_model_as_it_was(
    folder: Path, change: Any, options: dict[str, Any], at: int
) -> None:
    model = make(**options)
    before = picture(model.base_model.model)
    # PEFT itself takes the settings of a new adapter back after errors, but not after Ctrl-C.
    with contextlib.suppress(MemoryError):
        with interrupted(at, MemoryError):
            change(model, folder)
        return
    assert picture(model.base_model.model) == before


@pytest.mark.parametrize(
    "merge",
    [
        lambda model: model.merge_adapter(["default", "other"], safe_merge=True),
        lambda model: model.merge_and_unload(safe_merge=True, adapter_names=["default", "other"]),
        lambda model: model.base_model.model[1].merge(safe_merge=True, adapter_names=["default", "other"]),
    ],
    ids=["merge_adapter", "merge_and_unload", "one layer"],
)
def test_no_weight_changes_where_the_second_layer_of_the_second_adapter_is_refused(merge: Any) -> None:
    model = make(broken="other")
    before = picture(model.base_model.model)
    with pytest.raises(ValueError, match="NaN"):
        merge(model)
    assert picture(model.base_model.model) == before
    assert "other" in model.peft_config


def test_a_write_that_fails_takes_all_others_back(folder: Path) -> None:
    for at in range(1, 7):
        model = make()
        before = picture(model)
        with failing_writes(at), pytest.raises(RuntimeError, match="out of memory"):
            hotswap_adapter(model, folder)
        assert picture(model) == before


class Unique(nn.Linear):
    def __deepcopy__(self, _: Any) -> Any:
        raise RuntimeError("there is but one")


def test_a_head_that_cannot_be_copied_leaves_no_layer_behind() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2), Unique(2, 2))
    before = picture(model)
    with pytest.raises(RuntimeError, match="there is but one"):
        get_peft_model(model, CDDConfig(target_modules=["0"], modules_to_save=["2"]))
    assert picture(model) == before
