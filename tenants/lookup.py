"""What other rooms show of people and companies: names beside what they know by id. Room: tenants."""

from dataclasses import dataclass

from tenants.models import Company, User
from tenants.scope import Actor, find, visible


@dataclass(frozen=True, slots=True)
class CompanyName:
    company_id: str
    slug: str
    name: str


def person(actor: Actor, user_id: str) -> User:
    """Raises NotVisible: for a user of another company, one that does not exist, and an id that is none."""
    return find(actor, User, pk=user_id)


def person_named(actor: Actor, username: str) -> User:
    """Raises NotVisible."""
    return find(actor, User, username=username)


def companies(actor: Actor) -> list[CompanyName]:
    """Those that the actor sees, by name."""
    rows = visible(actor, Company).order_by("name").values_list("pk", "slug", "name")
    return [CompanyName(str(pk), slug, name) for pk, slug, name in rows]
