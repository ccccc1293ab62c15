"""What the tests of files share: operators to save, and what equal ones are."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, settings

import structmat as sm

once = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
DAMAGE_MESSAGE = r"broken\.safetensors"


def same_bits(a, b):
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def static_fields(op):
    """The tree of classes and of all fields that are no arrays."""
    fields = {}
    for name in op._field_names():
        value = getattr(op, name)
        if isinstance(value, sm.LinearOperator):
            value = static_fields(value)
        elif isinstance(value, tuple) and value and isinstance(value[0], sm.LinearOperator):
            value = [static_fields(v) for v in value]
        elif name in op._core_axes and not isinstance(value, (int, float, complex)):
            value = tuple(value.shape)
        fields[name] = value
    return type(op), fields


def assert_equal(got, want, to_numpy=np.asarray):
    assert static_fields(got) == static_fields(want)
    assert got.dtype == want.dtype
    assert len(got._arrays()) == len(want._arrays())
    for a, b in zip(got._arrays(), want._arrays(), strict=True):
        assert type(a) is type(b)
        assert a.dtype == b.dtype
        assert same_bits(to_numpy(a), to_numpy(b))
    if all(isinstance(a, np.ndarray) for a in want._arrays()):
        assert same_bits(got.to_dense(), want.to_dense())


def attempt(read, path, text):
    """What `read` returns, or None where it raises a ValueError of one line that holds `text`."""
    try:
        return read(path)
    except ValueError as error:
        message = str(error)
    assert text in message
    assert "\n" not in message
    return None


def nested_operator(dtype="float32", seed=0):
    rng = np.random.default_rng(seed)
    v = lambda *shape: rng.standard_normal(shape).astype(dtype)
    product = sm.Product([sm.Diagonal(v(6)), sm.BlockCirculant(v(2, 2, 4), (6, 5)), sm.Circulant(v(5)).to_spectral()])
    return sm.Scaled(sm.Sum([product, sm.BlockCirculant(v(2, 2, 3), (6, 5))]), -0.1)
