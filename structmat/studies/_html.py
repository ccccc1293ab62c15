"""Self-contained HTML pages: facts, tables and figures in one file."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import structmat

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Section", "html_page"]


class Section(NamedTuple):
    """One part of a page."""

    title: str
    text: str = ""
    figure: Figure | None = None
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    """Of a table; what looks like a number stands at the right."""
    folded: bool = False
    """Whether the reader must unfold the table."""


def html_page(title: str, facts: Mapping[str, str], sections: Sequence[Section]) -> bytes:
    """Return a page that needs no other file and no network, with figures as drawings in it."""
    try:
        import jinja2  # noqa: PLC0415  # an extra
    except ModuleNotFoundError as error:
        raise ImportError('an HTML report needs the extra "studies": pip install "structmat[studies]"') from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("structmat.studies", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("report.html.jinja").render(
        title=title,
        facts=facts,
        sections=[(s, "" if s.figure is None else _drawn(s.figure)) for s in sections],
        version=structmat.__version__,
        is_number=_is_number,
    )
    return page.encode()


def _drawn(figure: Figure) -> str:
    """Return a figure as the address of an image: equal figures give equal texts."""
    import matplotlib as mpl  # noqa: PLC0415  # an extra

    stream = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "structmat"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _is_number(text: str) -> bool:
    return text[:1].isdigit() or text in {"", "-"}
