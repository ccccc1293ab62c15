"""The tables of a fit of a checkpoint: CSV, JSON, and a page of HTML that needs no other file."""

from __future__ import annotations

import io
from typing import Any

import structmat
from structmat._files import tables
from structmat.studies._checkpoint._figure import layers_figure
from structmat.studies._html import Section, html_page, without_missing_glyphs

__all__ = ["csv_bytes", "figure_bytes", "html_bytes", "json_bytes"]

_COLUMNS = ("layer", "shape", "dtype", "norm", "parameters", "error", "SVD rank", "SVD parameters", "SVD error")


def csv_bytes(layers: list[dict[str, Any]]) -> bytes:
    """Return the layers as CSV, with full precision and a line of names."""
    return tables.csv_bytes([*layers[0]], (layer.values() for layer in layers))


def json_bytes(content: dict[str, Any]) -> bytes:
    """Return everything as JSON, with the version."""
    return tables.json_bytes({"structmat": structmat.__version__, **content})


def figure_bytes(layers: list[dict[str, Any]]) -> bytes:
    """Return the figure of the report as PNG."""
    stream = io.BytesIO()
    with without_missing_glyphs():
        layers_figure(layers).savefig(stream, format="png", dpi=150)
    return stream.getvalue()


def html_bytes(content: dict[str, Any], *, n_factors: int, block_size: int | str, weighted: bool) -> bytes:
    """Return the report."""
    layers = content["layers"]
    share = content["n_parameters"] / content["dense_parameters"]
    changed = sum(layer["norm"] > 0 for layer in layers)
    side = {"min": "the smaller side", "toeplitz": "the sum of both sides less one"}.get(str(block_size), block_size)
    facts = {
        "layers": f"{changed} changed, {len(layers) - changed} not",
        "product": f"{n_factors} factors, blocks of {side}",
        "parameters": f"{content['n_parameters']:,} ({share:.3%} of dense)",
        "relative error, all layers together": f"{content['error']:.4f}",
        "of truncated SVDs of no more parameters": f"{content['svd_error']:.4f}",
    }
    if weighted:
        facts["errors"] = "weighted by the second moments of the inputs"
    sections = [
        Section("Errors", figure=layers_figure(layers)),
        Section("Layers", columns=_COLUMNS, rows=[_cells(layer) for layer in layers]),
    ]
    if content["skipped"]:
        rows = [*content["skipped"].items()]
        sections.append(Section("Skipped", columns=("layer", "why"), rows=rows))
    if content["left_out"]:
        names = [(name,) for name in content["left_out"]]
        sections.append(Section("Tuned too, but not in the adapter", columns=("weight",), rows=names))
    return html_page("CDD adapter of a checkpoint", facts, sections)


def _cells(layer: dict[str, Any]) -> tuple[str, ...]:
    head = (layer["name"], f"{layer['rows']} x {layer['cols']}", layer["dtype"])
    if not layer["norm"]:
        return (*head, "0", "not in the adapter", "-", "-", "-", "-")
    return (
        *head,
        f"{layer['norm']:.4g}",
        f"{layer['n_parameters']:,}",
        f"{layer['error']:.4f}",
        f"{layer['svd_rank']}",
        f"{layer['svd_parameters']:,}",
        f"{layer['svd_error']:.4f}",
    )
