"""What other rooms show of people and companies: names beside what they know by id. Room: tenants."""

from dataclasses import dataclass, field

from tenants.models import Company, User
from tenants.scope import Actor, find, visible


@dataclass(frozen=True, slots=True)
class CompanyName:
    company_id: str
    slug: str
    name: str


@dataclass(frozen=True, slots=True)
class Contact:
    """Who is written to; the address stays out of the repr."""

    name: str
    email: str = field(repr=False)


def person(actor: Actor, user_id: str) -> User:
    """Raises NotVisible: for a user of another company, one that does not exist, and an id that is none."""
    return find(actor, User, pk=user_id)


def person_named(actor: Actor, username: str) -> User:
    """Raises NotVisible."""
    return find(actor, User, username=username)


def company(actor: Actor, company_id: str) -> Company:
    """With its tier. Raises NotVisible, also for an id that is none."""
    return find(actor, Company, pk=company_id)


def companies(actor: Actor) -> list[CompanyName]:
    """Those that the actor sees, by name."""
    rows = visible(actor, Company).order_by("name").values_list("pk", "slug", "name")
    return [CompanyName(str(pk), slug, name) for pk, slug, name in rows]


def contacts(actor: Actor, company_id: str) -> list[Contact]:
    """The admins of a company who can sign in and have a mail address; empty too for a company that is not visible."""
    rows = visible(actor, User).filter(company__pk=company_id, role=User.Role.COMPANY_ADMIN, is_active=True)
    return [Contact(user.get_full_name() or user.username, user.email) for user in rows.order_by("pk") if user.email]


def has_operator() -> bool:
    """Whether somebody can sign in who sees all companies."""
    operators = visible(Actor.system("check"), User).filter(role=User.Role.OPERATOR, is_superuser=True, is_active=True)
    return any(operator.has_usable_password() for operator in operators)


def person_of_session(session_key: str) -> User | None:
    """Who is signed in to the admin by this session now, with all steps passed; for answers that go on for long."""
    # Not before the apps are loaded: the sign-in has models of other packages.
    from tenants.signin import steps

    return steps.person_of_session(session_key)
