"""Making "CDD" one of PEFT's methods."""

from __future__ import annotations

from functools import wraps
from importlib.metadata import version
from typing import Any

from packaging.specifiers import SpecifierSet
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.optimizers import loraplus
from peft.utils import register_peft_method
from peft.utils.peft_types import PeftType
from torch import nn

from structmat._errors import ArgumentTypeError

__all__ = ["SUPPORTED", "register", "require_supported"]

SUPPORTED = ">=0.21"
"""The versions of peft that work: older ones have no way to add a method.

docs/guide/tools_versions.md names the version that the tests ran with.
"""


def require_supported() -> None:
    """Check the version of peft: older ones have no way to add a method.

    Raises
    ------
    ImportError
        If it is too old.
    """
    found = version("peft")
    if not SpecifierSet(SUPPORTED).contains(found, prereleases=True):
        raise ImportError(f'structmat.peft works with peft{SUPPORTED}, found {found}: pip install "peft{SUPPORTED}"')


def register(config_cls: type, model_cls: type) -> None:
    """Add the method to PEFT's tables. Doing it again with the same classes changes nothing.

    Raises
    ------
    ImportError
        If PEFT has a method of that name with other classes.
    """
    present = PEFT_TYPE_TO_CONFIG_MAPPING.get(PeftType.CDD) if hasattr(PeftType, "CDD") else None
    if present is None:
        if not hasattr(PeftType, "CDD"):
            _add_member("CDD")
        register_peft_method(name="cdd", config_cls=config_cls, model_cls=model_cls)
        _refuse_loraplus()
    elif present is not config_cls or PEFT_TYPE_TO_TUNER_MAPPING.get(PeftType.CDD) is not model_cls:
        raise ImportError(
            f"PEFT already has a method CDD, of {present.__module__}; if structmat.peft was reloaded, start Python anew"
        )


def _add_member(name: str) -> None:
    """Add a member to the enumeration of PEFT's methods.

    PEFT looks methods up there and reads `value` of what it finds. Enumerations cannot be extended, so their tables are
    written.
    """
    member = str.__new__(PeftType, name)
    member._name_, member._value_, member._sort_order_ = name, name, len(PeftType)
    type.__setattr__(PeftType, name, member)
    PeftType._member_names_.append(name)
    PeftType._member_map_[name] = member
    PeftType._value2member_map_[name] = member


def _refuse_loraplus() -> None:
    """Have PEFT's optimiser for LoRA+ refuse models with adapters of this method.

    The optimiser gives a higher rate to each parameter of one axis, whatever the method is. Diagonals are such
    parameters and circulants are not. The function that it calls first is replaced in its module, where every call
    looks it up: so those who have imported the optimiser before are refused too.
    """
    names_of = loraplus.get_parameter_names

    @wraps(names_of)
    def checked(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if any(".cdd_adapters." in name for name, _ in model.named_parameters()):
            text = (
                "has adapters of CDD, all vectors of which take one learning rate; LoRA+ has a higher one for "
                "parameters of one axis, as diagonals are: take another optimiser, such as torch.optim.AdamW"
            )
            raise ArgumentTypeError("create_loraplus_optimizer", "model", text)
        return names_of(model, *args, **kwargs)

    loraplus.get_parameter_names = checked
