"""The table of live connections: what a browser asks for, and rows and columns as it gets them. Room: streaming."""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from django.http import QueryDict
from django.urls import NoReverseMatch, reverse
from django.utils.text import capfirst
from django.utils.translation import gettext as _

from streaming.cluster.live import LiveConnection
from streaming.console.listing import DEFAULT_SORT, STATES, Wanted, is_sort
from tenants.access import CompanyName

# Rows on one page; who looks for one among more filters.
SHOWN_LIMIT = 500
FILTERS = ("company", "user", "account", "state", "address")
_TEXT_LIMIT = 150


@dataclass(frozen=True, slots=True)
class Column:
    """``url``: the same list, sorted by this column; empty where it cannot be. ``arrow``: how it is sorted now."""

    name: str
    label: str
    url: str = ""
    arrow: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    one: LiveConnection
    company: str
    opened_at: datetime.datetime
    state: str
    # In the admin.
    user_url: str

    @classmethod
    def of(cls, one: LiveConnection, company_names: Mapping[str, str]) -> "Row":
        try:
            url = reverse("admin:tenants_user_change", args=[one.user_id])
        except NoReverseMatch:
            url = ""
        opened_at = datetime.datetime.fromtimestamp(one.opened_at, tz=datetime.UTC)
        return cls(one, company_names.get(one.company_id, ""), opened_at, states().get(one.state, one.state), url)


def states() -> dict[str, str]:
    return dict(zip(STATES, (_("streaming"), _("waiting for Kafka"), _("idle")), strict=True))


def wanted(asked: QueryDict, companies: Sequence[CompanyName]) -> Wanted:
    """What cannot be read asks for nothing; a company only where the choice is offered."""
    texts = filters(asked)
    chosen = {one.slug: one.company_id for one in companies}
    slug = texts["company"]
    sort = asked.get("sort", "")
    return Wanted(
        # A name that is none finds nothing.
        company_id=chosen.get(slug, "-") if slug and companies else "",
        name=texts["user"],
        account=texts["account"],
        state=texts["state"] if texts["state"] in STATES else "",
        address=texts["address"],
        sort=sort if is_sort(sort) else DEFAULT_SORT,
    )


def filters(asked: QueryDict) -> dict[str, str]:
    return {name: asked.get(name, "").strip()[:_TEXT_LIMIT] for name in FILTERS}


def kept(asked: QueryDict, **changes: str) -> str:
    """The query of the same list: its filters and its order."""
    texts = {**filters(asked), "sort": asked.get("sort", "") if is_sort(asked.get("sort", "")) else "", **changes}
    return urlencode({name: text for name, text in texts.items() if text})


def columns(asked: QueryDict, chosen: Wanted, *, with_company: bool) -> list[Column]:
    labels = {
        "user": _("User"),
        "company": _("Company"),
        "accounts": _("MT5 accounts"),
        "state": _("State"),
        "address": _("Address"),
        "opened": _("Connected since"),
        "messages": _("Messages"),
        "in_flight": _("Waiting"),
    }
    if not with_company:
        del labels["company"]
    made = []
    for name, label in labels.items():
        is_down = chosen.sort == f"-{name}"
        is_here = chosen.sort.removeprefix("-") == name
        # A second click turns the order round; numbers and times begin with the largest.
        falls_first = name in ("opened", "messages", "in_flight")
        falls = not is_down if is_here else falls_first
        url = f"?{kept(asked, sort=f'-{name}' if falls else name)}"
        made.append(Column(name, capfirst(label), url, ("↓" if is_down else "↑") if is_here else ""))
    return made
