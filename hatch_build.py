"""What the metadata of the package take from other places: the page of the package index, and the links beside it.

Both come from README.md and from two settings of `[tool.hatch.metadata.hooks.custom]` in pyproject.toml, the addresses
of the repository and of its documentation. As long as these are empty there are no such links, and the page has the
text of README.md without them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

PICTURE = re.compile(r"!\[([^]]*)\]\((?!https?:)([^)]*)\)(\n\n)?")
LINK = re.compile(r"(?<!!)\[([^]]*)\]\((?!https?:|#)([^)]*)\)")


class LinksFromOnePlace(MetadataHookInterface):
    """The hook that hatchling calls when it builds or installs the package."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add what pyproject.toml declares as dynamic, beside the version."""
        text = (Path(self.root) / "README.md").read_text("utf-8")
        repository, documentation = self.config["repository"], self.config["documentation"]
        metadata["readme"] = {"content-type": "text/markdown", "text": index_page(text, repository)}
        metadata["urls"] = urls(repository, documentation)


def urls(repository: str, documentation: str) -> dict[str, str]:
    """Return the links that the package index shows."""
    links = {"Documentation": documentation} if documentation else {}
    if repository:
        links |= {
            "Repository": repository,
            "Issues": f"{repository}/issues",
            "Changelog": f"{repository}/blob/main/CHANGELOG.md",
        }
    return links | {"Paper of the fine-tuning method": "https://arxiv.org/abs/2505.00580"}


def index_page(text: str, repository: str) -> str:
    """Return README.md for a page that has no files beside it: links lead to the repository, or go."""
    if not repository:
        return LINK.sub(r"\1", PICTURE.sub("", text))
    text = PICTURE.sub(rf"![\1]({repository}/raw/main/\2)\3", text)
    return LINK.sub(rf"[\1]({repository}/blob/main/\2)", text)
