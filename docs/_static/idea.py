"""Draw `idea.svg`: a matrix beside its three factors, every cell coloured by the number it holds.

Run ``python docs/_static/idea.py`` to write the picture.
"""

from pathlib import Path

import numpy as np

import structmat as sm

CELL, GAP, TOP, LEFT = 22, 40, 52, 14
POSITIVE, NEGATIVE, INK = "#e07b24", "#2f7fc8", "#7a828e"
FONT = "font-family='system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif'"
TARGET = Path(__file__).with_name("idea.svg")

a = np.array([1.0, 0.55, -0.8, 0.9, 0.45, -1.0, 0.7, 0.85])
c = np.array([0.95, 0.7, 0.3, -0.25, -0.85, -0.4, 0.1, 0.5])
b = np.array([0.8, -0.6, 1.0, 0.5, 0.9, 0.75, -0.95, 0.6])


def cell(x: float, y: float, value: float) -> str:
    colour = POSITIVE if value >= 0 else NEGATIVE
    opacity = 0.08 + 0.92 * min(abs(value), 1) if value else 0
    return (
        f"<rect x='{x:g}' y='{y:g}' width='{CELL}' height='{CELL}' fill='{colour}' fill-opacity='{opacity:.2f}' "
        f"stroke='{INK}' stroke-opacity='0.35' stroke-width='0.75'/>"
    )


def text(x: float, y: float, content: str, size: int, weight: str = "normal") -> str:
    return (
        f"<text x='{x:g}' y='{y:g}' text-anchor='middle' font-size='{size}' font-weight='{weight}' fill='{INK}' {FONT}>"
        f"{content}</text>"
    )


def matrix(x: float, values: np.ndarray, title: str, caption: str) -> list[str]:
    side = CELL * len(values)
    cells = [cell(x + CELL * j, TOP + CELL * i, v) for i, row in enumerate(values) for j, v in enumerate(row)]
    frame = f"<rect x='{x}' y='{TOP}' width='{side}' height='{side}' fill='none' stroke='{INK}' stroke-width='1.5'/>"
    middle = x + side / 2
    return [*cells, frame, text(middle, TOP - 16, title, 26, "600"), text(middle, TOP + side + 32, caption, 23)]


def picture() -> str:
    product = sm.CDDProduct.from_vectors(a, c, b)
    dense = product.to_dense() + 0.06 * np.random.default_rng(0).standard_normal(product.shape)
    side, parts = CELL * len(a), []
    columns = [
        (dense / np.abs(dense).max(), "matrix W", "n² numbers", "≈"),
        (product.factors[0].to_dense(), "diagonal", "n numbers", "×"),
        (product.factors[1].to_dense(), "circulant", "n numbers", "×"),
        (product.factors[2].to_dense(), "diagonal", "n numbers", ""),
    ]
    x = LEFT
    for values, title, caption, sign in columns:
        parts += matrix(x, values, title, caption)
        x += side + GAP
        if sign:
            parts.append(text(x - GAP / 2, TOP + side / 2 + 12, sign, 38))
    width, height = x - GAP + LEFT, TOP + side + 46
    head = (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' height='{height}' "
        "role='img' aria-label='A dense matrix is approximated by a diagonal times a circulant times a diagonal'>"
    )
    return "\n".join(
        [
            head,
            *parts,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    TARGET.write_text(picture(), encoding="utf-8")
