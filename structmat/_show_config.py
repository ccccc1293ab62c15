"""What `structmat.show_config` prints."""

from __future__ import annotations

from structmat._fourier.engines import engine_of


def show_config() -> None:
    """Print versions, and which library transforms NumPy arrays.

    Examples
    --------
    >>> import structmat as sm
    >>> sm.show_config()  # doctest: +ELLIPSIS
    structmat ...
    NumPy arrays are transformed by scipy.fft...
    """
    from importlib import metadata  # noqa: PLC0415  # slow to import, and not needed before

    packages = ("structmat", "numpy", "scipy", "array-api-compat", "ducc0", "torch", "jax", "cupy")
    installed = {package.name for package in metadata.distributions()}
    print(", ".join(f"{name} {metadata.version(name)}" for name in packages if name in installed))  # noqa: T201
    if engine_of("numpy") == "ducc0":
        engine = "scipy.fft and ducc0"
    else:
        engine = "scipy.fft (the extra structmat[fast] brings ducc0, which is faster)"
    print(f"NumPy arrays are transformed by {engine}, other arrays by their own library.")  # noqa: T201
