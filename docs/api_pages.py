"""What the pages of classes show beside their docstrings: a table of methods near the top, and public bases alone."""

import inspect

import public_api

import structmat as sm

FIRST = ("solve", "matvec", "inv", "prepare", "to_dense", "eigvals", "slogdet", "norm")
PUBLIC = {value: name for name, value in public_api.names().items() if inspect.isclass(value)}


def inherited(cls):
    """Return the public names that a class has from another class of structmat."""
    names = (name for name in dir(cls) if not name.startswith("_") and name not in vars(cls))
    owners = {name: next(base for base in cls.__mro__ if name in vars(base)) for name in names}
    return [name for name, owner in owners.items() if owner.__module__.partition(".")[0] == "structmat"]


def of_private_bases(cls):
    """Return what a class has from private bases alone, with the directive that documents it.

    The page of `LinearOperator` shows all that it inherits.
    """
    if cls is sm.LinearOperator:
        return []
    public = [base for base in cls.__mro__[1:] if base in PUBLIC]
    alone = [name for name in inherited(cls) if not any(hasattr(base, name) for base in public)]
    return [(_directive(getattr(cls, name)), name) for name in alone]


def _directive(member):
    """Return the directive that documents a member of a class."""
    if isinstance(member, property):
        return "autoproperty"
    return "automethod" if callable(member) else "autoattribute"


def table(cls, names):
    """Return a table of methods in reStructuredText, each linked to the class that documents it."""
    lines = [f"   ~{cls.__name__ if name in vars(cls) else 'LinearOperator'}.{name}" for name in names]
    return [".. autosummary::", "   :nosignatures:", "", *lines, ""]


def add_methods(*event):
    """Put a table of the first methods of an operator, and one of all that it inherits, before its parameters."""
    _, what, _, cls, _, lines = event
    if what != "class" or cls is sm.LinearOperator or not issubclass(cls, sm.LinearOperator):
        return
    rest = [name for name in inherited(cls) if hasattr(sm.LinearOperator, name) and name not in FIRST]
    folded = [f"   {line}" for line in table(cls, rest)]
    at = next((i for i, line in enumerate(lines) if line.startswith((":", ".. rubric::"))), len(lines))
    lines[at:at] = [*table(cls, FIRST), ".. dropdown:: All other inherited methods", "", *folded, ""]


def show_public_bases(*event):
    """Replace private bases by the first public class above each, or one of another library."""
    bases = event[-1]
    for i, base in enumerate(bases):
        mro = getattr(base, "__mro__", ())  # `NamedTuple` is a function
        cls = next((c for c in mro if c in PUBLIC or c.__module__.partition(".")[0] != "structmat"), base)
        bases[i] = f":py:class:`{PUBLIC[cls]}`" if cls in PUBLIC else cls


def setup(app):
    app.connect("autodoc-process-docstring", add_methods, priority=900)  # after numpydoc
    app.connect("autodoc-process-bases", show_public_bases)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
