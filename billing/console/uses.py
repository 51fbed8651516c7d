"""What a company uses of its plan, for its page; other rooms add what they count. Room: billing."""

from collections.abc import Callable
from typing import Any

from tenants.pages import Place, accounts_place, users_place

# Called with a company.
_added: list[Callable[[Any], Place]] = []


def add_use(count: Callable[[Any], Place]) -> None:
    """At start: one more line on the page. ``taken`` and ``limit`` of the place may be of any unit."""
    if count not in _added:
        _added.append(count)


def users_and_accounts(company: Any) -> list[Place]:
    return [users_place(company), accounts_place(company)]


def all_uses(company: Any) -> list[Place]:
    return [*users_and_accounts(company), *(count(company) for count in _added)]
