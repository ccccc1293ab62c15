"""`CDDConfig`: the settings of an adapter."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import InitVar, dataclass, field, fields
from functools import wraps
from pathlib import Path
from typing import Any, Literal

from peft.config import PeftConfig
from peft.utils import PeftType

from structmat._adapter_format import REQUIRES, says_nothing
from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat._files import atomic_write
from structmat.torch._adapters.from_lora import explaining
from structmat.torch._adapters.options import AdapterOptions
from structmat.torch._files.low_bits import require_known_bits

__all__ = ["CDDConfig"]

BIASES = ("none", "all", "cdd_only")
"""Which biases are trained as well; PEFT forms the last word from the prefix of a method's parameters."""
_HEADING = "## How to Get Started with the Model\n"
"""The heading of PEFT's model card under which the hint stands."""
_HINT = """
PEFT loads this adapter after `pip install "structmat[peft]"` and `import structmat.peft`, which adds the method to it;
without that import it says `KeyError: 'CDD'`.
"""


def _setting(name: str) -> Any:
    """Return a field of the settings that is an option of every adapter, with its default and its help."""
    (option,) = (each for each in fields(AdapterOptions) if each.name == name)
    return field(default=option.default, metadata={"help": option.metadata["help"]})


@dataclass
class CDDConfig(PeftConfig):
    """Settings of an adapter that adds alpha times D C D, a product of diagonals and circulants, to layers of a model.

    Parameters
    ----------
    task_type : str or peft.TaskType, optional
        As in all methods of PEFT.
    peft_type : str, optional
        Always "CDD".
    auto_mapping, peft_version, base_model_name_or_path, revision, inference_mode : optional
        Kept by PEFT.
    requires : str, optional
        Always what PEFT needs to load the adapter, for those who read the file.
    n_factors : int, default 3
        Odd and at least 3: the number of diagonals and circulants. A square layer of n features takes
        ``n_factors * n`` parameters.
    block_size : int, "min" or "toeplitz", default "min"
        Side of the circulants; the last blocks are cropped. "min" is the smaller of a layer's numbers of features,
        which is the fastest and has the fewest parameters; "toeplitz" is one less than their sum.
    alpha : float, default 1.0
        Factor of the change; not trained. Unlike LoRA's it is not divided by anything. With Adam-like optimisers
        doubling it is similar to doubling the learning rate.
    dropout : float, default 0.0
        The share of the inputs of the change that is set to zero in training, at random; at least 0 and less than 1.
    factor_scale : float, default 30.0
        Positive. Diagonals are this times the trained vectors, circulants of n columns this over the root of n, so that
        learning rates of LoRA, 1e-4 to 1e-3, suit layers of every size.
    target_modules : list of str or str, optional
        Names of modules, or ends of names; a regular expression for whole paths; or "all-linear". Default: as for LoRA,
        for the architectures that PEFT knows. Linear layers, embeddings, convolutions and
        `torch.nn.MultiheadAttention` can be adapted.
    exclude_modules : list of str or str, optional
        Modules to leave out, likewise; of experts all in modules of such names.
    target_parameters : list of str, optional
        Parameters that no layer of its own holds, by their names or ends of names, such as "experts.gate_up_proj": each
        matrix of a stack (experts, rows, columns) gets a change of its own. Names of experts in checkpoints, such as
        "gate_proj" or "w1" among `target_modules`, and "all-linear" mean such parameters too, and are added here.
    init_weights : bool, default True
        True: the change starts at exactly zero. False: it starts at random, so that outputs differ at once; for tests,
        and for layers trained from scratch.
    bias : {"none", "all", "cdd_only"}, default "none"
        Which biases are trained as well: of all modules, or of adapted ones.
    modules_to_save : list of str, optional
        Modules that are trained and saved as they are, such as a new classification head.
    trainable_token_indices : list of int or dict, optional
        Tokens whose embeddings are trained and saved too, such as new ones; for other modules than the input
        embedding a dict of lists by name of the module.
    layers_to_transform : list of int or int, optional
        Indices of the layers to adapt. Default: all.
    layers_pattern : list of str or str, optional
        Name of the list of layers, where PEFT does not know it; only with `layers_to_transform`.
    bits : int, optional
        Set by reading a folder that `structmat.torch.save_adapter` has written with so many bits a number.

    Raises
    ------
    ValueError
        If an option has none of the values above.
    TypeError
        If there is no such option, or its value is of another kind.

    See Also
    --------
    structmat.torch.CDDAdapter : What each adapted layer gets.

    References
    ----------
    .. [1] X. Ding, L. Chen, S. Liao, Z. Wang, Parameter-efficient fine-tuning with circulant and diagonal vectors,
       IJCAI 2025, pp. 9185-9193, arXiv:2505.00580.

    Examples
    --------
    >>> from structmat.peft import CDDConfig
    >>> config = CDDConfig(target_modules=["query", "value"])
    >>> config.n_factors, config.block_size, config.alpha
    (3, 'min', 1.0)
    """

    requires: str = field(default=REQUIRES, metadata={"help": "What PEFT needs to load the adapter; always the same."})
    n_factors: int = _setting("n_factors")
    block_size: int | Literal["min", "toeplitz"] = _setting("block_size")
    alpha: float = _setting("alpha")
    dropout: float = _setting("dropout")
    factor_scale: float = _setting("factor_scale")
    target_modules: list[str] | str | None = field(
        default=None, metadata={"help": "Names, a regular expression or 'all-linear'; default: as for LoRA."}
    )
    exclude_modules: list[str] | str | None = field(default=None, metadata={"help": "Modules to leave out."})
    target_parameters: list[str] | None = field(
        default=None, metadata={"help": "Names of parameters, such as stacked weights of experts."}
    )
    init_weights: bool = field(default=True, metadata={"help": "True: no change; False: a random one."})
    bias: Literal["none", "all", "cdd_only"] = field(
        default="none", metadata={"help": "Biases trained as well: 'none', 'all' or 'cdd_only'."}
    )
    modules_to_save: list[str] | None = field(
        default=None, metadata={"help": "Modules trained and saved as they are, such as a new head."}
    )
    trainable_token_indices: list[int] | dict[str, list[int]] | None = field(
        default=None, metadata={"help": "Tokens whose embeddings are trained too, or dict of those by module."}
    )
    layers_to_transform: list[int] | int | None = field(
        default=None, metadata={"help": "Indices of the layers to adapt; default: all."}
    )
    layers_pattern: list[str] | str | None = field(
        default=None, metadata={"help": "Name of the list of layers, only with layers_to_transform."}
    )

    bits: InitVar[int | None] = None

    def __post_init__(self, bits: int | None) -> None:
        super().__post_init__()
        require_known_bits(bits, "CDDConfig")
        self.peft_type = PeftType.CDD
        self.requires = REQUIRES
        for name, value in vars(AdapterOptions.checked(vars(self), "CDDConfig")).items():
            setattr(self, name, value)
        if not isinstance(self.init_weights, bool):
            raise ArgumentTypeError("CDDConfig", "init_weights", f"must be True or False, got {self.init_weights!r}")
        if self.bias not in BIASES:
            text = f"must be one of {', '.join(BIASES)} (in LoRA lora_only), got {self.bias!r}"
            raise ArgumentValueError("CDDConfig", "bias", text)
        for name in ("target_modules", "exclude_modules", "target_parameters", "modules_to_save"):
            _require_names(getattr(self, name), name, or_text=name in {"target_modules", "exclude_modules"})
        # The order of names means nothing: settings with the same names are equal.
        for name, kind in (("target_modules", set), ("exclude_modules", set), ("target_parameters", sorted)):
            if isinstance(getattr(self, name), list):
                setattr(self, name, kind(getattr(self, name)))
        for name in ("layers_to_transform", "layers_pattern"):
            if isinstance(self.target_modules, str) and getattr(self, name) is not None:
                raise ArgumentValueError("CDDConfig", None, f"`{name}` cannot be used when `target_modules` is a str.")
        if self.layers_pattern and self.layers_to_transform is None:
            text = "When `layers_pattern` is specified, `layers_to_transform` must also be specified."
            raise ArgumentValueError("CDDConfig", None, text)

    def save_pretrained(self, save_directory: str, **kwargs: Any) -> None:
        """Write the settings; where a model of PEFT is saved, its model card says how to load the adapter.

        Parameters
        ----------
        save_directory : str
            Folder of the adapter.
        **kwargs
            As for all methods of PEFT.
        """
        # Only models of PEFT hand this over, and only they write a card.
        of_a_model = "auto_mapping_dict" in kwargs
        super().save_pretrained(save_directory, **kwargs)
        if not of_a_model:
            return
        folder = Path(save_directory)
        # An adapter with a name of its own has a folder within that of the card.
        places = (folder / "README.md", folder.resolve().parent / "README.md")
        card = next((place for place in places if place.is_file()), None)
        if card is None:
            return
        text = card.read_text("utf-8")
        is_of_peft = re.match(r"---\n((?!---).*\n)*library_name: peft\n", text)
        if is_of_peft and _HINT not in text:
            text = text if _HEADING in text else f"{text}\n\n{_HEADING}"
            with atomic_write(card, force=True) as file:
                file.write(text.replace(_HEADING, _HEADING + _HINT, 1).encode())


def _reading_files(init: Callable[..., None]) -> Callable[..., None]:
    """Return ``__init__`` of the settings so that PEFT reads files by it.

    It leaves out what says nothing, as options of other revisions that nobody has chosen, and refuses all else that is
    unknown: with such a setting the vectors of a file may mean another change.
    """
    known = frozenset(inspect.signature(init).parameters)
    checked = explaining("CDDConfig", "; a file with it is read by the revision of structmat that wrote it")(init)

    @wraps(init)
    def read(self: CDDConfig, *args: Any, **settings: Any) -> None:
        if not settings.keys() <= known:
            settings = {name: value for name, value in settings.items() if name in known or not says_nothing(value)}
        checked(self, *args, **settings)

    return read


CDDConfig.__init__ = _reading_files(CDDConfig.__init__)  # type: ignore[method-assign]


def _require_names(value: Any, name: str, *, or_text: bool) -> None:
    """Refuse a value that is neither None nor a collection of names, nor a string where a string is allowed."""
    if value is None or (or_text and isinstance(value, str)):
        return
    several = not isinstance(value, (str, bytes, Mapping)) and isinstance(value, Collection)
    if not several or not all(isinstance(each, str) for each in value):
        wanted = "a list of names or a string" if or_text else "a list of names"
        raise ArgumentTypeError("CDDConfig", name, f"must be {wanted}, got {value!r}")
