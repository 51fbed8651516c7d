"""The version of the product, read from its changelog. Room: gateway_project."""

import re
from pathlib import Path

_CHANGELOG = Path(__file__).resolve().parent.parent / "CHANGELOG.md"
_HEADING = re.compile(r"^## (\d+\.\d+\.\d+)", re.MULTILINE)


def read_version(changelog: str) -> str:
    """The first version heading; raises ValueError when there is none."""
    match = _HEADING.search(changelog)
    if match is None:
        raise ValueError("CHANGELOG.md has no heading of the form: ## 1.2.3")
    return match[1]


VERSION = read_version(_CHANGELOG.read_text(encoding="utf-8"))
