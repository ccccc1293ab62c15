"""From weights that were tuned to the vectors of an adapter, and the files of an adapter in the format of PEFT.

The change of one layer is read or computed when it is needed; `LayerTask` fits it.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from structmat._arguments import to_numpy
from structmat._checkpoint import CheckpointError, Entry
from structmat.fit import baseline_errors, fit_cdd
from structmat.operators import CDDLayout

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "CONFIG",
    "FACTOR_KEY",
    "FACTOR_SCALE",
    "PREFIX",
    "REQUIRES",
    "WEIGHTS",
    "Change",
    "LayerTask",
    "config_bytes",
    "exact_targets",
    "factor_key",
    "factor_scales",
    "unit_rng",
    "weighted_norm",
    "weights_bytes",
]

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
"""Of names in the files of PEFT."""
FACTOR_KEY = re.compile(r"^(?:base_model\.model\.)?(?P<path>.*)\.cdd_adapters\.vectors\.(?P<index>\d+)$")
"""Keys of the vectors of a product: path of the module, and place of the factor."""
FACTOR_SCALE = 30.0
"""What diagonals are divided by to be stored and trained; see `factor_scales`."""
_ROWS = 256
"""Rows of a matrix whose norm is summed at a time."""
REQUIRES = 'pip install "structmat[peft]"; import structmat.peft'
"""What PEFT needs to load an adapter."""


@dataclass(frozen=True)
class Change:
    """A tuned weight minus its base; without a base, a change that stands in a file."""

    tuned: Entry
    base: Entry | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tuned.shape

    def check(self, *, cast: bool = False) -> None:
        """Refuse what cannot be read, and weights that do not go together; `cast` lets their dtypes differ."""
        for entry in filter(None, (self.base, self.tuned)):
            entry.check_floats()
        base = self.base or self.tuned
        if self.tuned.shape != base.shape:
            raise CheckpointError(f"{self.tuned} has shape {self.tuned.shape}, but {base} has {base.shape}")
        if self.tuned.dtype != base.dtype and not cast:
            text = f"{self.tuned} has dtype {self.tuned.dtype}, but {base} has {base.dtype}"
            raise CheckpointError(f"{text}; the option cast takes them so")

    @np.errstate(over="ignore", invalid="ignore")  # infinity and NaN are refused by whoever asks
    def matrix(self) -> NDArray[Any]:
        """Return the change; one whole matrix is held, and a few rows of the other."""
        if self.base is None:
            return self.tuned.read()
        wide = "float64" if "float64" in {self.tuned.dtype, self.base.dtype} else "float32"
        change = np.empty(self.shape, wide)
        for rows, part in self.tuned.chunks():
            change[rows] = part
        for rows, part in self.base.chunks():
            change[rows] -= part
        return change

    def __str__(self) -> str:
        return str(self.tuned)


@dataclass(frozen=True)
class LayerTask:
    """The fit of the change of one layer."""

    name: str
    change: Change
    transposed: bool = False
    """Whether the change is stored as inputs by outputs."""
    n_factors: int = 3
    block_size: int | str = "min"
    input_second_moment: Entry | None = None
    rng: int = 0
    """Seed of the whole run."""
    time_limit: float | None = None

    @property
    def cost(self) -> float:
        """Entries of the matrix, to which the time is roughly proportional."""
        return float(math.prod(self.change.shape))

    def run(self) -> tuple[dict[str, Any], dict[str, Any], dict[str, NDArray[Any]]]:
        """Read, fit and compare; return what rows say of the fit and of the SVD, and the vectors by their place."""
        matrix = self.change.matrix()
        if matrix.ndim != 2:
            raise CheckpointError(f"{self.change} must be a matrix, got shape {matrix.shape}")
        if not np.isfinite(matrix).all():
            raise CheckpointError(f"{self.change}: the change holds NaN or infinity")
        if self.transposed:
            matrix = np.ascontiguousarray(matrix.T)
        moment = None if self.input_second_moment is None else self.input_second_moment.read()
        rows, cols = matrix.shape
        if not matrix.any():
            nothing = {"n_parameters": 0, "error": 0.0}
            return {"rows": rows, "cols": cols, "norm": 0.0, "status": "completed", **nothing}, nothing, {}
        try:
            layout = CDDLayout((rows, cols), self.n_factors, self.block_size, owner="fit_cdd")
            options: dict[str, Any] = {"input_second_moment": moment}
            most = [layout.n_parameters]
            ((used, errors),) = baseline_errors(matrix, most, names=["truncated-svd"], **options).values()
            norm = weighted_norm(matrix, moment)
            if math.isinf(norm):
                raise CheckpointError(f"{self.change}: the norm of the change overflows")
            options |= {"rng": unit_rng(self.rng, self.name), "time_limit": self.time_limit}
            result = fit_cdd(matrix, self.n_factors, block_size=layout.block_size, **options)
        except ValueError as error:
            raise CheckpointError(f"{self.change}: {error}") from error
        vectors = {str(i): to_numpy(v) for i, v in enumerate(layout.vectors_of(result.operator))}
        fit = {"n_parameters": layout.n_parameters, "error": result.error, "status": result.status}
        svd = {"n_parameters": int(used[0]), "error": float(errors[0])}
        return {"rows": rows, "cols": cols, "norm": norm, **fit}, svd, vectors


def weighted_norm(matrix: NDArray[Any], moment: NDArray[Any] | None) -> float:
    """Return what errors of a matrix are relative to: its norm, weighted with second moments of the inputs if given."""
    largest = float(np.abs(matrix).max(initial=0.0))
    if largest == 0.0:
        return 0.0
    total = 0.0
    for start in range(0, len(matrix), _ROWS):  # to save memory
        part = matrix[start : start + _ROWS]
        scaled = part.astype(np.result_type(part, np.float64)) / largest  # no square over- or underflows
        weighted = scaled if moment is None else scaled * moment if moment.ndim == 1 else scaled @ moment
        total += float(np.vdot(scaled, weighted).real)
    return largest * math.sqrt(max(total, 0.0))


def unit_rng(rng: int, key: str) -> np.random.Generator:
    """Return the random number generator of one unit of work: the same wherever and whenever it runs."""
    words = np.frombuffer(hashlib.sha256(key.encode()).digest(), "<u4")
    return np.random.default_rng([rng, *words.tolist()])


def factor_key(name: str, index: int | str) -> str:
    """Return the key of the vector of a factor of a module."""
    return f"{PREFIX}{name}.cdd_adapters.vectors.{index}"


def factor_scales(vector_shapes: Iterable[tuple[int, ...]], scale: float = FACTOR_SCALE) -> tuple[float, ...]:
    """Return what trained and stored vectors are multiplied by to be those of the factors D C D ... D.

    A step of an optimiser of Adam's kind changes every stored entry by about the learning rate. Where entries of a
    circulant with n columns change by s, its products change by s times the root of n: so steps change those of all
    factors alike.
    """
    shapes = list(vector_shapes)
    columns = [1 if i % 2 == 0 else shapes[i + 1][0] for i in range(len(shapes))]  # as many as the diagonal behind has
    return tuple(scale / math.sqrt(n) for n in columns)


def exact_targets(names: Collection[str], others: Iterable[str] | None = None) -> list[str] | str:
    """Return `target_modules` of PEFT that match the modules of these names, and no others of the model.

    A name in a list matches modules whose names end with it too. Where others do, or are not known, names become a
    regular expression.
    """
    chosen = set(names)
    if others is not None:
        ends = (other[dot.end() :] for other in others if other not in chosen for dot in re.finditer(r"\.", other))
        if chosen.isdisjoint(ends):
            return list(names)
    return "|".join(map(re.escape, names))


def config_bytes(
    targets: list[str] | str, *, n_factors: int, block_size: int | str, base: str | None, **others: Any
) -> bytes:
    """Return the settings of an adapter, as `structmat.peft.CDDConfig` reads them; `others` replace defaults."""
    settings = {
        "alpha": 1.0,
        "base_model_name_or_path": base,
        "block_size": block_size,
        "dropout": 0.0,
        "factor_scale": FACTOR_SCALE,
        "inference_mode": True,
        "n_factors": n_factors,
        "peft_type": "CDD",
        "requires": REQUIRES,
        "target_modules": targets,
        **others,
    }
    return json.dumps(settings, indent=2).encode() + b"\n"


def weights_bytes(layers: Mapping[str, Mapping[str, NDArray[Any]]]) -> bytes:
    """Return the weights of an adapter from the vectors of factors, of each module by their place in the product."""
    from safetensors.numpy import save  # noqa: PLC0415  # an extra

    arrays = {}
    for name, vectors in layers.items():
        scales = factor_scales(vector.shape for vector in vectors.values())
        for (i, vector), scale in zip(vectors.items(), scales, strict=True):
            arrays[factor_key(name, i)] = vector / np.asarray(scale, vector.dtype)
    return save(arrays, {"format": "pt"})
