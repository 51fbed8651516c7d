"""Lists as CSV files for a spreadsheet. Room: tenants."""

import csv
import datetime
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

from django.http import HttpResponse
from django.utils import timezone

# Where a spreadsheet takes what follows for a formula: at the beginning of a cell. It is told nothing of our separator:
# one set to Indonesian begins a new cell after each semicolon, and then takes a line break inside quotes for a new row.
_FORMULA_START = re.compile(r"(\A|[;\t\r\n])(?=[=+\-@\t\r])")
_GUARDED_START = re.compile(r"(\A|[;\t\r\n])'(?=[=+\-@\t\r])")


def guarded(value: Any) -> str:
    """The value as a cell that is text to every spreadsheet."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime.datetime):
        return timezone.localtime(value).isoformat(timespec="seconds")
    return _FORMULA_START.sub(r"\1'", str(value))


def unguarded(text: str) -> str:
    """What ``guarded`` was given."""
    return _GUARDED_START.sub(r"\1", text)


def csv_answer(name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> HttpResponse:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows([guarded(value) for value in row] for row in rows)
    # With a mark at its beginning Excel takes the file for UTF-8.
    answer = HttpResponse("\ufeff" + text.getvalue(), content_type="text/csv; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="{name}"'
    answer["Cache-Control"] = "no-store"
    return answer
