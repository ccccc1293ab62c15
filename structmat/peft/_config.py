"""`CDDConfig`: the settings of an adapter."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from peft.config import PeftConfig
from peft.utils import PeftType
from peft.utils.other import get_pattern_key

from structmat._arguments import finite, odd_factors, side_of_blocks
from structmat._array_tools import ArgumentTypeError, ArgumentValueError
from structmat._files import atomic_write
from structmat.peft._lora_options import naming_lora_options
from structmat.peft._option_kinds import check_kinds
from structmat.peft._stored_shapes import most_factors, stored_shapes

__all__ = ["CDDConfig"]

BIASES = ("none", "all", "cdd_only")
Mode: TypeAlias = Literal["recompute", "cache"]
STARTS = (True, False, "normal", "gradient")
_REQUIRES = 'pip install "structmat[peft]"; import structmat.peft'
_HEADING = "## How to Get Started with the Model\n"
_HINT = """
PEFT loads this adapter after `pip install "structmat[peft]"` and `import structmat.peft`, which adds the method to it;
without that import it says `KeyError: 'CDD'`.
"""


@naming_lora_options
@dataclass
class CDDConfig(PeftConfig):
    """Settings of an adapter that adds alpha times D C D, a product of diagonals and circulants, to linear layers.

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
    mode : {"recompute", "cache"}, default "recompute"
        Whether the backward pass computes transforms again, or keeps them: faster, and takes more memory.
    target_modules : list of str or str, optional
        Names of modules, or ends of names; a regular expression for whole paths; or "all-linear". Default: as for LoRA,
        for the architectures that PEFT knows.
    exclude_modules : list of str or str, optional
        Modules to leave out, likewise.
    init_weights : True, False, "normal" or "gradient", default True
        True: the change starts at exactly zero; use learning rates of 0.01 to 0.1, ten times those of LoRA. False and
        "normal": it starts at random, so that outputs differ at once; for tests, and for layers trained from scratch.
        "gradient": zero too, with factors from the gradient in ``weight.grad``: run ``loss.backward()`` on the model
        first, with a head that has learnt something, and use a rate of about 0.01.
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
    alpha_pattern : dict, optional
        Other values of `alpha`, by names or regular expressions of modules.
    block_size_pattern, n_factors_pattern : dict, optional
        Other values of `block_size` and `n_factors`, likewise.
    share_circulants : bool, default False
        Whether modules share their circulants, each with diagonals of its own, if their paths differ in whole numbers
        between dots only, as in repeated blocks, and sizes, options, dtypes and devices are the same. Not with
        ``init_weights="gradient"``.

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
    >>> config = CDDConfig(target_modules=["query", "value"], block_size_pattern={"layer.0.value": 64})
    >>> config.n_factors, config.block_size, config.alpha
    (3, 'min', 1.0)
    """

    requires: str = field(default=_REQUIRES, metadata={"help": "What PEFT needs to load the adapter; always the same."})
    n_factors: int = field(default=3, metadata={"help": "Number of diagonals and circulants: odd, at least 3."})
    block_size: int | Literal["min", "toeplitz"] = field(
        default="min",
        metadata={
            "help": "Side of the circulants; 'min' is the smaller of a layer's numbers of features, 'toeplitz' their "
            "sum less one."
        },
    )
    alpha: float = field(default=1.0, metadata={"help": "What the change is multiplied by; not trained."})
    dropout: float = field(
        default=0.0, metadata={"help": "Share of the change's inputs that are set to zero in training."}
    )
    mode: Mode = field(
        default="recompute", metadata={"help": "'recompute' transforms in the backward pass, or 'cache' them."}
    )
    target_modules: list[str] | str | None = field(
        default=None, metadata={"help": "Names, a regular expression or 'all-linear'; default: as for LoRA."}
    )
    exclude_modules: list[str] | str | None = field(default=None, metadata={"help": "Modules to leave out."})
    init_weights: bool | Literal["normal", "gradient"] = field(
        default=True,
        metadata={"help": "True: no change; False, 'normal': random; 'gradient': from weight.grad."},
    )
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
    alpha_pattern: dict[str, float] = field(
        default_factory=dict, metadata={"help": "Other values of alpha, by names or regular expressions of modules."}
    )
    block_size_pattern: dict[str, int | Literal["min", "toeplitz"]] = field(
        default_factory=dict, metadata={"help": "Other values of block_size, likewise."}
    )
    n_factors_pattern: dict[str, int] = field(
        default_factory=dict, metadata={"help": "Other values of n_factors, likewise."}
    )
    share_circulants: bool = field(
        default=False, metadata={"help": "Whether the same layers of all blocks share their circulants."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType.CDD
        self.requires = _REQUIRES
        self.n_factors = odd_factors(self.n_factors, "CDDConfig", "n_factors")
        self.block_size = side_of_blocks(self.block_size, "CDDConfig", "block_size")
        self.alpha = finite(self.alpha, "CDDConfig", "alpha")
        self.dropout = finite(self.dropout, "CDDConfig", "dropout")
        if not 0 <= self.dropout < 1:
            raise ArgumentValueError("CDDConfig", "dropout", f"must be at least 0 and less than 1, got {self.dropout}")
        self.n_factors_pattern = _pattern(self.n_factors_pattern, "n_factors_pattern", odd_factors)
        self.block_size_pattern = _pattern(self.block_size_pattern, "block_size_pattern", side_of_blocks)
        self.alpha_pattern = _pattern(self.alpha_pattern, "alpha_pattern", finite)
        if not any(self.init_weights is each or self.init_weights == each for each in STARTS):
            raise ArgumentValueError(
                "CDDConfig",
                "init_weights",
                f'must be True, False, "normal" or "gradient", got {self.init_weights!r}',
            )
        if not any(self.share_circulants is each for each in (True, False)):
            text = f"must be True or False, got {self.share_circulants!r}"
            raise ArgumentTypeError("CDDConfig", "share_circulants", text)
        if self.share_circulants and self.init_weights == "gradient":
            text = 'needs another init_weights than "gradient", which gives each layer a circulant of its own'
            raise ArgumentValueError("CDDConfig", "share_circulants", text)
        if self.mode not in get_args(Mode):
            raise ArgumentValueError("CDDConfig", "mode", f'must be "recompute" or "cache", got {self.mode!r}')
        if self.bias not in BIASES:
            raise ArgumentValueError("CDDConfig", "bias", f"must be one of {', '.join(BIASES)}, got {self.bias!r}")
        self._check_targets()
        self._is_loading = False

    def _check_targets(self) -> None:
        check_kinds(self)
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)  # type: ignore[assignment]
        if isinstance(self.exclude_modules, list):
            self.exclude_modules = set(self.exclude_modules)  # type: ignore[assignment]
        if isinstance(self.target_modules, str):
            for name in ("layers_to_transform", "layers_pattern"):
                if getattr(self, name) is not None:
                    raise ArgumentValueError(
                        "CDDConfig", None, f"`{name}` cannot be used when `target_modules` is a str."
                    )
        if self.layers_pattern and self.layers_to_transform is None:
            raise ArgumentValueError(
                "CDDConfig",
                None,
                "When `layers_pattern` is specified, `layers_to_transform` must also be specified.",
            )
        for name in ("target_modules", "exclude_modules"):
            value = getattr(self, name)
            if isinstance(value, str) and value != "all-linear":
                try:
                    re.compile(value)
                except re.error as error:
                    raise ArgumentValueError(
                        "CDDConfig", name, f"{value!r} is no regular expression: {error}"
                    ) from error

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as they are saved.

        Returns
        -------
        dict
            With ``init_weights`` True instead of "gradient", since there is no gradient when an adapter is loaded.
        """
        settings = asdict(self)
        if settings["init_weights"] == "gradient":
            settings["init_weights"] = True
        return settings

    def save_pretrained(self, save_directory: str, **kwargs: Any) -> None:
        """Write the settings; where PEFT has written a model card, that says how to load the adapter.

        Parameters
        ----------
        save_directory : str
            Folder of the adapter.
        **kwargs
            As for all methods of PEFT.
        """
        super().save_pretrained(save_directory, **kwargs)
        folder = Path(save_directory)
        # Adapters with names are in folders within that of the card.
        cards = [card for each in (folder, folder.resolve().parent) if (card := each / "README.md").is_file()]
        text = cards[0].read_text("utf-8") if cards else ""
        if re.match(r"---\n((?!---).*\n)*library_name: peft\n", text) and _HINT not in text:
            text = text if _HEADING in text else f"{text}\n\n{_HEADING}"
            with atomic_write(cards[0], force=True) as file:
                file.write(text.replace(_HEADING, _HEADING + _HINT, 1).encode())

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str, subfolder: str | None = None, **kwargs: Any
    ) -> CDDConfig:
        """Load the settings from a folder or the Hub.

        For a local folder the file of weights is checked as well, so that a broken one is reported before a model is
        changed.

        Parameters
        ----------
        pretrained_model_name_or_path : str
            Folder of an adapter, or name of a repository.
        subfolder : str, optional
            Within it.
        **kwargs
            Arguments of `huggingface_hub.hf_hub_download`.

        Returns
        -------
        CDDConfig
            The settings.

        Raises
        ------
        ValueError
            If there is no such file, or the file of weights is broken, foreign, or holds NaN or infinity.
        """
        config = super().from_pretrained(pretrained_model_name_or_path, subfolder=subfolder, **kwargs)
        if isinstance(config, CDDConfig):
            stored = stored_shapes(Path(pretrained_model_name_or_path, subfolder or ""))
            # Before adapters are made: one of 10^9 factors would take all memory.
            most = max(config.n_factors, *config.n_factors_pattern.values(), 0)
            if stored is not None and most > most_factors(stored):
                raise ArgumentValueError(
                    "CDDConfig.from_pretrained", None, f"n_factors is {most}, more than vectors in the file of weights"
                )
        return config

    def __setattr__(self, name: str, value: Any) -> None:
        """Note whether PEFT is about to load weights: it sets the mode then, and the name of the model otherwise."""
        if name in {"inference_mode", "base_model_name_or_path"}:
            super().__setattr__("_is_loading", name == "inference_mode")
        super().__setattr__(name, value)

    def layer_options(self, path: str) -> dict[str, Any]:
        """Return the options of one module, with the values of the patterns.

        Parameters
        ----------
        path : str
            Of the module.

        Returns
        -------
        dict
            Arguments of `structmat.torch.CDDAdapter`: ``n_factors``, ``block_size`` and ``alpha``.
        """
        return {
            option: values.get(get_pattern_key(values.keys(), path), getattr(self, option))
            for option, values in self.patterns().items()
        }

    def patterns(self) -> dict[str, dict[str, Any]]:
        """Return the patterns, by option.

        Returns
        -------
        dict
            Of ``n_factors``, ``block_size`` and ``alpha``.
        """
        return {
            "n_factors": self.n_factors_pattern,
            "block_size": self.block_size_pattern,
            "alpha": self.alpha_pattern,
        }


def _pattern(values: Any, argument: str, checked: Callable[[Any, str, str], Any]) -> dict[str, Any]:
    if not isinstance(values or {}, Mapping):
        raise ArgumentTypeError("CDDConfig", argument, f"must be a dict of values by names of modules, got {values!r}")
    for key in values or {}:
        try:
            re.compile(key)
        except (re.error, TypeError) as error:
            raise ArgumentValueError("CDDConfig", argument, f"has {key!r}, no regular expression: {error}") from error
    return {key: checked(value, "CDDConfig", f"{argument}[{key!r}]") for key, value in (values or {}).items()}
