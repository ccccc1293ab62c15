"""What a study gave, as tests compare it: its rows, and the files of its folder."""

from __future__ import annotations

from types import SimpleNamespace


def layers(study):
    """Return the rows of the layers, each with the error of the truncated SVD beside it."""
    fits = [row for row in study.rows if row["method"] == "cdd"]
    svds = {row["layer"]: row for row in study.rows if row["method"] == "truncated-svd"}
    assert [fit["layer"] for fit in fits] == [*svds]
    return [
        SimpleNamespace(**fit, svd_error=svds[fit["layer"]]["error"], svd_parameters=svds[fit["layer"]]["n_parameters"])
        for fit in fits
    ]


def rows(study):
    """Return the rows without the times, which differ between equal studies."""
    return [{name: value for name, value in row.items() if not name.endswith("seconds")} for row in study.rows]


def adapter(out):
    """Return the files of an adapter."""
    return [(out / "adapter-3" / name).read_bytes() for name in ("adapter_model.safetensors", "adapter_config.json")]
