"""Hold the docstring of every public name to the numpydoc standard, by the checks that pyproject.toml selects.

Properties, named tuples and inherited methods are looked up on the imported objects, which the file-based
``numpydoc lint`` cannot do.
"""

import inspect
import sys
from pathlib import Path

from numpydoc.hooks.validate_docstrings import parse_config
from numpydoc.validate import validate

import structmat

sys.path.insert(0, str(Path(__file__).parent))

import public_api

# Parameters that numpydoc does not see, or that are documented beside each field.
EXEMPT = {
    ("structmat.ArgumentTypeError", "PR01"): "its parameters are those of ArgumentError",
    ("structmat.ArgumentValueError", "PR01"): "its parameters are those of ArgumentError",
    ("structmat.jax.register_operator", "PR02"): "a first parameter called cls is taken for that of a class method",
}


def fields_speak_for_themselves(value: object) -> bool:
    """Tell whether a class is a plain record, whose fields have a docstring each or an Attributes section."""
    return inspect.isclass(value) and (hasattr(value, "_fields") or "Attributes\n" in (value.__doc__ or ""))


def main() -> None:
    checks = parse_config(Path(__file__).resolve().parent.parent)["checks"]
    findings: set[tuple[str, str, str]] = set()
    seen: set[str] = set()
    for name, value in public_api.names().items():
        for target in (name, *public_api.own_members(value)):
            if target in seen or not (inspect.isclass(value) or inspect.isroutine(value)):  # a constant has none
                continue
            seen.add(target)
            for code, text in validate(target)["errors"]:
                exempt = (target, code) in EXEMPT or (code == "PR01" and fields_speak_for_themselves(value))
                if code in checks and not exempt:
                    findings.add((target, code, text))
            if "]_" in (inspect.getdoc(value) or "").partition("\n\n")[0] and target == name:
                findings.add(
                    (target, "summary", "cites a reference, which tables of names show as a code: cite it below")
                )
    for target, code, text in sorted(findings):
        print(f"{target}: {code} {text}")
    print(f"structmat {structmat.__version__}: {len(seen)} public docstrings checked, {len(findings)} findings")
    sys.exit(bool(findings) or not seen)


if __name__ == "__main__":
    main()
