"""What the pages of classes show beside their docstrings: a table of methods near the top, and public bases alone."""

import inspect

import capabilities
import public_api

import structmat as sm
from structmat.extend import closed_forms

FIRST = ("matvec", "to_dense", "prepare")
"""Methods of all operators that stand in the first table."""
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


def methods(cls):
    """Return the names of three tables: what the operators of a class have, what all have, and what these lack.

    The first holds the methods that only this class has, and those with a closed form for it by the table of operators.
    Of a class that is not in that table, such as `Prepared`, which has what its operator has, nothing is lacking.
    """
    has = capabilities.methods_of(cls.__name__)
    lacking = [name for name in closed_forms() if name not in has] if has else []
    inherits = inherited(cls)
    only_here = [name for name in inherits if not hasattr(sm.LinearOperator, name)]
    own = [name for name in [*vars(cls), *only_here] if not name.startswith("_") and callable(getattr(cls, name, None))]
    first = list(dict.fromkeys([*FIRST, *(name for name in own if name not in (*has, *lacking)), *has]))
    return first, [name for name in inherits if name not in (*first, *lacking)], lacking


def table(cls, names):
    """Return a table of methods in reStructuredText, each linked to the class that documents it."""
    on_its_page = {name for name in names if name in vars(cls) or not hasattr(sm.LinearOperator, name)}
    lines = [f"   ~{cls.__name__ if name in on_its_page else 'LinearOperator'}.{name}" for name in names]
    return [".. autosummary::", "   :nosignatures:", "", *lines, ""]


def folded(cls, title, text, names):
    """Return a table that opens by its title, nothing if it would be empty."""
    if not names:
        return []
    return [f".. dropdown:: {title}", "", *(f"   {line}".rstrip() for line in [*text, *table(cls, names)]), ""]


def add_methods(*event):
    """Put tables of the methods of an operator before its parameters."""
    _, what, _, cls, _, lines = event
    if what != "class" or cls is sm.LinearOperator or not issubclass(cls, sm.LinearOperator):
        return
    first, rest, lacking = methods(cls)
    partly = [
        f"`~LinearOperator.{name}`" for name, always in capabilities.methods_of(cls.__name__).items() if not always
    ]
    note = [f"Some shapes alone have {', '.join(partly)}: see :doc:`the table of operators </capabilities>`.", ""]
    without = ["These raise an error that says what to call in their place:", ""]
    at = next((i for i, line in enumerate(lines) if line.startswith((":", ".. rubric::"))), len(lines))
    lines[at:at] = [
        *table(cls, first),
        *(note if partly else []),
        *folded(cls, "All other inherited methods", [], rest),
        *folded(cls, "No closed form for this kind of matrix", without, lacking),
    ]


def show_public_bases(*event):
    """Replace private bases by the first public class above each, or one of another library.

    Above a private base that only adds methods there is `object`, which tells nothing beside another base.
    """
    bases = event[-1]
    shown = []
    for base in bases:
        mro = getattr(base, "__mro__", ())  # `NamedTuple` is a function
        cls = next((c for c in mro if c in PUBLIC or c.__module__.partition(".")[0] != "structmat"), base)
        shown.append(f":py:class:`{PUBLIC[cls]}`" if cls in PUBLIC else cls)
    bases[:] = [base for base in shown if base is not object] or shown


def setup(app):
    app.connect("autodoc-process-docstring", add_methods, priority=900)  # after numpydoc
    app.connect("autodoc-process-bases", show_public_bases)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
