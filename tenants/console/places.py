"""How much of its plan a company uses, in words. Room: tenants."""

from dataclasses import dataclass

from django.http import HttpRequest
from django.utils.translation import gettext as _

from tenants.access import Actor, visible
from tenants.models import ActivePair, Company, MT5Account, User, limits_of
from tenants.models.places import full_text
from tenants.scope import find


@dataclass(frozen=True, slots=True)
class Place:
    """``text``: "7 of 10 users"; ``advice``: what to do when none is left, else ""."""

    text: str
    taken: int
    limit: int
    advice: str = ""

    @property
    def is_full(self) -> bool:
        return self.taken >= self.limit

    @property
    def is_over(self) -> bool:
        return self.taken > self.limit


def own_company(request: HttpRequest) -> Company | None:
    """The company of a company admin; None for an operator."""
    user = request.user
    return user.company if isinstance(user, User) else None


def users_place(company: Company) -> Place:
    taken = visible(_COUNTER, User).filter(company=company).count()
    return _place("user_limit", _("%(taken)d of %(limit)d users"), taken, limits_of(company).user_limit)


def accounts_place(company: Company) -> Place:
    taken = visible(_COUNTER, MT5Account).filter(company=company).count()
    limit = limits_of(company).company_account_limit
    return _place("company_account_limit", _("%(taken)d of %(limit)d MT5 accounts"), taken, limit)


def accounts_place_of(user: User, company: Company) -> Place:
    taken = visible(_COUNTER, MT5Account).filter(owner=user).count()
    limit = limits_of(company).user_account_limit
    return _place("user_account_limit", _("%(taken)d of %(limit)d MT5 accounts of this user"), taken, limit)


def pairs_place_of(user: User, company: Company) -> Place:
    taken = visible(_COUNTER, ActivePair).filter(user=user).count()
    limit = limits_of(company).pair_limit
    return _place("pair_limit", _("%(taken)d of %(limit)d active pairs of this user"), taken, limit)


def company_of(user: User) -> Company | None:
    """With its tier, for one whose user was loaded without."""
    return None if user.company_id is None else find(_COUNTER, Company, pk=user.company_id)


def _place(limit_name: str, text: str, taken: int, limit: int) -> Place:
    advice = full_text(limit_name, taken, limit) if taken >= limit else ""
    return Place(text % {"taken": taken, "limit": limit}, taken, limit, advice[:1].upper() + advice[1:])


# Counts hold for a company whoever asks; the caller has been let see the company.
_COUNTER = Actor.system("console")
