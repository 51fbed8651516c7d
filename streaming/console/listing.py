"""Which live connections an administrator sees, filtered and sorted; the same for pages and commands. Room: streaming.

Plain functions that wait for Redis: call them from a thread.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from streaming.cluster.live import LiveConnection
from streaming.live import live_connections
from tenants.access import Actor

STATES = ("streaming", "paused", "idle")
DEFAULT_SORT = "-opened"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Empty fields ask for nothing."""

    company_id: str = ""
    user_id: str = ""
    # A part of the user's name, in any case.
    name: str = ""
    # An MT5 login, whole.
    account: str = ""
    state: str = ""
    # The beginning of the client's address.
    address: str = ""
    # A key of SORTS, with "-" for the largest first.
    sort: str = DEFAULT_SORT

    def takes(self, one: LiveConnection) -> bool:
        return (
            self.company_id in ("", one.company_id)
            and self.user_id in ("", one.user_id)
            and self.name.casefold() in one.username.casefold()
            and (not self.account or self.account in one.accounts)
            and self.state in ("", one.state)
            and one.address.startswith(self.address)
        )


def scope_of(actor: Actor) -> list[str] | None:
    """The companies whose connections the actor sees; None: all."""
    if actor.sees_all:
        return None
    return [str(actor.company_id)] if actor.is_company_admin else []


def connections_for(
    actor: Actor, wanted: Wanted, company_names: Mapping[str, str] | None = None
) -> list[LiveConnection]:
    """Raises LiveUnavailable. ``company_names``: by id, for sorting by them."""
    scope = scope_of(actor)
    found = live_connections(scope)
    # What a row says of its company counts, not only the place where it was found.
    seen = [one for one in found if (scope is None or one.company_id in scope) and wanted.takes(one)]
    key = sort_keys(company_names or {}).get(wanted.sort.removeprefix("-"))
    return seen if key is None else sorted(seen, key=key, reverse=wanted.sort.startswith("-"))


def sort_keys(company_names: Mapping[str, str]) -> dict[str, Callable[[LiveConnection], Any]]:
    return {
        "user": lambda one: (one.username.casefold(), one.opened_at),
        "company": lambda one: (company_names.get(one.company_id, "").casefold(), one.username.casefold()),
        "accounts": lambda one: one.accounts,
        "address": lambda one: one.address,
        "state": lambda one: STATES.index(one.state) if one.state in STATES else len(STATES),
        "messages": lambda one: one.messages,
        "in_flight": lambda one: one.in_flight,
        "opened": lambda one: one.opened_at,
    }


def is_sort(text: str) -> bool:
    return text.removeprefix("-") in sort_keys({})


def age_of(found: Collection[LiveConnection], now: float) -> float:
    """Seconds since the oldest of these figures was written; ``now`` in Unix seconds."""
    return max((now - one.seen_at for one in found), default=0.0)
