"""What of its monthly volume a company has used, in words for its people. Room: usage."""

from typing import Any

from django.utils.translation import gettext as _

from tenants.pages import Place, limits_of
from usage.recording import volume_of

_STEPS = ((2**30, "GB"), (2**20, "MB"), (2**10, "kB"))


def data_of_month(company: Any) -> Place:
    """``taken`` and ``limit`` in bytes."""
    taken, limit = volume_of(str(company.pk)), limits_of(company).monthly_data_limit
    text = _("%(size)s of %(limit)s of data this month") % {"size": _size(taken), "limit": _size(limit)}
    advice = _("The volume of this month is used up: choose a larger plan, or wait for the next month.")
    return Place(text, taken, limit, advice if taken >= limit else "")


def _size(count: int) -> str:
    for step, name in _STEPS:
        if count >= step:
            return f"{count / step:.3g} {name}" if count < 100 * step else f"{count / step:.0f} {name}"
    return f"{count} B"
