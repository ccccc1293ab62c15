"""Arrays of any library: namespaces, dtypes, shapes, values; errors of arguments; tables of rules for pairs of types.

Knows no operator. What other folders use is imported here; errors, checks, tables and types come from their files.

- `numpy_bridge`: from an array of any library to NumPy and back
- `parameters`: objects whose parameters are arrays or other such objects: operators and plans
- `values`, `shapes`: arguments read as arrays and numbers; axes, lengths and the order of entries
- `norms`, `small_systems`: norms and quotients that neither overflow nor underflow; stacks of small dense systems
- `namespaces`, `dtypes`: whose an array is, and on which device; every decision about precisions
- `derivatives`: what libraries that differentiate are doing with a function
- `checks`, `errors`, `warn`: checks of arguments that are not arrays; the errors of all, and warnings
- `option_names`: what an option that does not exist may have meant
- `dispatch`: the tables of rules for pairs of types
- `typing`: types shared by the whole package
"""

from __future__ import annotations

from structmat._arrays.dtypes import (
    common_dtype,
    complex_partner,
    dtype_name,
    in_precision,
    is_complex,
    is_complex_scalar,
    is_half_precision,
    matmul,
    precision_of,
    restored,
)
from structmat._arrays.namespaces import device_of, is_array, is_eager_on_cpu, is_numpy, library_of, namespace_of
from structmat._arrays.norms import binary_exponents, binary_unit, euclidean_norm, quotient
from structmat._arrays.shapes import (
    Reciprocal,
    along_axes,
    broadcast_shapes,
    concat_last,
    contiguous,
    is_vector,
    moved,
    padded,
    reversed_cyclically,
    scale_array,
    windows,
)
from structmat._arrays.small_systems import inverses, singular_values, solutions
from structmat._arrays.values import (
    are_normal,
    as_floating,
    can_raise_for_values,
    copied,
    filled,
    negligible,
    reciprocal_above,
    require_nonzero,
)

__all__ = [
    "Reciprocal",
    "along_axes",
    "are_normal",
    "as_floating",
    "binary_exponents",
    "binary_unit",
    "broadcast_shapes",
    "can_raise_for_values",
    "common_dtype",
    "complex_partner",
    "concat_last",
    "contiguous",
    "copied",
    "device_of",
    "dtype_name",
    "euclidean_norm",
    "filled",
    "in_precision",
    "inverses",
    "is_array",
    "is_complex",
    "is_complex_scalar",
    "is_eager_on_cpu",
    "is_half_precision",
    "is_numpy",
    "is_vector",
    "library_of",
    "matmul",
    "moved",
    "namespace_of",
    "negligible",
    "padded",
    "precision_of",
    "quotient",
    "reciprocal_above",
    "require_nonzero",
    "restored",
    "reversed_cyclically",
    "scale_array",
    "singular_values",
    "solutions",
    "windows",
]
