"""Tables and examples of a Markdown page, for tests that compare them with the code."""

import re
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_HEADING = re.compile(r"#{1,6} +(.*)")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

Row = dict[str, str]


class Page:
    """One page of the documentation, by the headings of its parts."""

    def __init__(self, path: str) -> None:
        self.text = (_ROOT / path).read_text(encoding="utf-8")
        # Heading -> tables below it, each a list of rows by column name.
        self.tables: dict[str, list[list[Row]]] = {}
        heading = ""
        columns: list[str] | None = None
        rows: list[Row] = []
        for line in _FENCE.sub("", self.text).splitlines():
            if found := _HEADING.fullmatch(line):
                heading, columns = found[1], None
            elif not line.startswith("|"):
                columns = None
            elif columns is None:
                columns = _cells(line)
                rows = []
                self.tables.setdefault(heading, []).append(rows)
            elif not set(line) <= set("|-: "):
                cells = _cells(line)
                assert len(cells) == len(columns), f"{heading}: a row of {len(cells)} cells, not {len(columns)}: {line}"
                rows.append(dict(zip(columns, cells, strict=True)))

    def table(self, heading: str, column: str = "") -> list[Row]:
        """The table below this heading, or the one of them whose first column has this name."""
        found = [rows for rows in self.tables[heading] if not column or column in rows[0]]
        assert len(found) == 1, f"{len(found)} tables below {heading!r}"
        return found[0]

    def headed(self, beginning: str) -> list[str]:
        return [heading for heading in self.tables if heading.startswith(beginning)]

    def example(self, language: str, heading: str) -> str:
        """The first block of code in this language below the heading."""
        part = self.text[self.text.index(f"# {heading}") :]
        for found in _FENCE.finditer(part):
            if found[1] == language:
                return found[2]
        raise AssertionError(f"no example in {language} below {heading!r}")


def bare(cell: str) -> str:
    """A cell without its code marks."""
    return cell.strip("`")


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]
