"""What products would be computed with: versions, engines, the choice for each size."""

from __future__ import annotations

import math
from importlib import metadata

from structmat._engine.engines import choices, ducc
from structmat._engine.measured_choices import CHUNK, LARGEST_PRIME, direct_sizes

__all__ = ["show_config"]


def show_config() -> None:
    """Print versions, the engines found, and which of them multiplies a vector of which size.

    See Also
    --------
    LinearOperator.prepare : Choose an engine for one operator.

    Examples
    --------
    >>> import structmat as sm
    >>> sm.show_config()  # doctest: +ELLIPSIS
    structmat ...
    NumPy arrays are transformed by scipy.fft...
    """
    print("\n".join(_lines()))  # noqa: T201  # what it is for, as in NumPy and SciPy


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _lines() -> list[str]:
    packages = ("structmat", "numpy", "scipy", "array-api-compat", "ducc0", "torch", "jax", "cupy")
    found = [(name, version) for name in packages if (version := _version(name))]
    engine = "scipy.fft and ducc0" if ducc() else "scipy.fft (the extra structmat[fast] brings ducc0, which is faster)"
    lines = [
        ", ".join(f"{name} {version}" for name, version in found),
        f"NumPy arrays are transformed by {engine}, other arrays by their own library.",
        f"Batches of NumPy arrays are computed in chunks of at most {CHUNK // 2**10} KiB.",
        f"A length with a prime factor above {LARGEST_PRIME['numpy']} is embedded in a longer one.",
        "",
        "A product of a circulant of size n, prepared:",
    ]
    for dtype in ("float32", "float64", "complex64", "complex128"):
        for batched in (False, True):
            direct = direct_sizes("ducc0" if ducc() else "numpy", dtype)[8 if batched else 1]
            parts = [f"dense for n <= {direct}"] if direct else []
            for limit, method in choices(dtype, batched=batched):
                if limit > direct:
                    parts.append(method if limit == math.inf else f"{method} for n <= {limit:g}")
            lines.append(f"  {dtype}, {'8 vectors or more' if batched else 'one vector'}: {', '.join(parts)}")
    return lines
