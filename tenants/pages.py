"""The door to the admin's pages for other rooms: the base of their own pages, and what those show. Room: tenants."""

from tenants.console.base import ScopedAdmin
from tenants.console.pages import Tool, confirm, is_confirmed, page_context
from tenants.console.places import Place, accounts_place, own_company, users_place
from tenants.console.scoping import ScopedRelatedFilter, actor_of
from tenants.models import limits_of

__all__ = [
    "Place",
    "ScopedAdmin",
    "ScopedRelatedFilter",
    "Tool",
    "accounts_place",
    "actor_of",
    "confirm",
    "is_confirmed",
    "limits_of",
    "own_company",
    "page_context",
    "users_place",
]
