"""Who acts, and which rows that person may see at all. Room: tenants.

Every query starts from one of these: a row of another company is not there, so that unknown and forbidden look alike.
"""

import os
import pwd
import uuid
from dataclasses import dataclass
from typing import Any, TypeVar

from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ObjectDoesNotExist, ValidationError
from django.db.models import Model, Q, QuerySet

from tenants.models import (
    ActivePair,
    ApiKey,
    AuditEntry,
    Ban,
    Company,
    CompanyOverride,
    MT5Account,
    RevokedToken,
    SubscriptionTier,
    User,
)

_Row = TypeVar("_Row", bound=Model)


class NotVisible(ObjectDoesNotExist):
    """The row does not exist, or not for this actor; which of both is not said."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts. ``role``: a User.Role, or "system" for the product itself and an operator's shell."""

    role: str
    name: str
    user_id: uuid.UUID | None = None
    company_id: uuid.UUID | None = None
    # Where the request came from, for the audit log.
    address: str = ""

    @classmethod
    def of(cls, user: "User | AnonymousUser", address: str = "") -> "Actor":
        """Somebody who is not signed in, or is disabled, sees nothing."""
        if not isinstance(user, User) or not user.is_active:
            return cls(role="", name="")
        # A role without what belongs to it must not see more than nothing: the flags alone prove little.
        role = user.role
        if role == User.Role.OPERATOR and not user.is_superuser:
            role = ""
        return cls(role=role, name=user.username, user_id=user.pk, company_id=user.company_id, address=address)

    @classmethod
    def system(cls, name: str = "system") -> "Actor":
        return cls(role="system", name=name)

    @classmethod
    def shell(cls) -> "Actor":
        """The product itself, under the name of whoever runs a command on this machine."""
        user_id = os.getuid()
        try:
            name = pwd.getpwuid(user_id).pw_name
        except KeyError:
            # A container may run as a number that has no name.
            name = str(user_id)
        return cls.system(f"shell:{name}")

    @property
    def sees_all(self) -> bool:
        return self.role in (User.Role.OPERATOR, "system")

    @property
    def is_company_admin(self) -> bool:
        return self.role == User.Role.COMPANY_ADMIN and self.company_id is not None


# Model -> (path to the company, path to the person); None: nobody but operators sees the rows.
_PATHS: dict[type[Model], tuple[str, str] | None] = {
    Company: ("pk", ""),
    User: ("company", "pk"),
    MT5Account: ("company", "owner"),
    ActivePair: ("user__company", "user"),
    ApiKey: ("user__company", "user"),
    RevokedToken: ("user__company", "user"),
    Ban: ("user__company", "user"),
    AuditEntry: ("company_id", ""),
    CompanyOverride: None,
    SubscriptionTier: None,
}


def register_scope(model: type[Model], to_company: str | None) -> None:
    """For models of other rooms, at start: whose rows they are, as the path to the company, "subscription__company".

    Company admins then see their company's rows, operators all, traders none; None: nobody but operators sees them.
    """
    _PATHS[model] = None if to_company is None else (to_company, "")


def visible(actor: Actor, model: type[_Row]) -> QuerySet[_Row]:
    """The rows that exist for this actor. Raises KeyError for a model that is no tenant's."""
    paths = _PATHS[model]
    rows: QuerySet[_Row] = model._default_manager.all()
    if actor.sees_all:
        return rows
    if paths is None or actor.company_id is None:
        return rows.none()
    to_company, to_person = paths
    if actor.role == User.Role.COMPANY_ADMIN:
        rows = rows.filter(Q(**{to_company: actor.company_id}))
        # What an entry copies of a row is seen by whoever may see the row.
        return rows.exclude(object_type__in=_operators_rows()) if model is AuditEntry else rows
    if actor.role == User.Role.TRADER and to_person:
        return rows.filter(Q(**{to_company: actor.company_id, to_person: actor.user_id}))
    if actor.role == User.Role.TRADER and model is Company:
        return rows.filter(Q(pk=actor.company_id))
    return rows.none()


def _operators_rows() -> list[str]:
    """As the audit log names them; asked for each time, as other rooms register theirs later."""
    return [str(model._meta.model_name) for model, paths in _PATHS.items() if paths is None]


def find(actor: Actor, model: type[_Row], **lookup: Any) -> _Row:
    """Raises NotVisible, also for an id that is none."""
    try:
        # SQLite finds nothing for this, PostgreSQL takes no such text.
        if any(isinstance(value, str) and "\0" in value for value in lookup.values()):
            raise ValueError
        row = visible(actor, model).filter(**lookup).first()
    except (ValueError, TypeError, OverflowError, ValidationError):
        row = None
    if row is None:
        raise NotVisible(f"there is no such {model._meta.verbose_name}")
    return row


def is_tenant_model(model: type[Model]) -> bool:
    return model in _PATHS


def company_ids_of(row: Model) -> set[uuid.UUID]:
    """The companies whose users a change of this row concerns."""
    if isinstance(row, Company):
        return {row.pk}
    if isinstance(row, SubscriptionTier):
        return set(Company.objects.filter(tier=row).values_list("pk", flat=True))
    if isinstance(row, MT5Account | CompanyOverride):
        return {row.company_id}
    if isinstance(row, ActivePair | ApiKey | RevokedToken | Ban):
        row = row.user
    return {row.company_id} if isinstance(row, User) and row.company_id else set()
