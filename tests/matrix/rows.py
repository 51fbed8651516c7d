"""Rows of every table for each company, made from the models themselves: a table that is added has rows here at once.

Every text, UUID and number in them carries the company's marks.
"""

import datetime
import graphlib
from collections.abc import Callable, Mapping
from typing import Any

from django.apps import apps
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import models
from django.db.models import Model
from django.utils import timezone
from django_otp.plugins.otp_totp.models import TOTPDevice

from billing.models import AccessGrant, Invoice, InvoiceCounter, Plan, Price, Refund, Subscription, WebhookReceipt
from events.models import OutboxEvent, RelayLease
from tenants.models import AuditEntry, Ban, Company, MT5Account, SubscriptionTier, User
from tests.matrix.marks import Marks

_OUR_APPS = ("tenants", "billing", "usage", "events")
# Packages' tables with rows of companies in them.
_OF_PACKAGES: tuple[type[Model], ...] = (LogEntry, TOTPDevice)
# Tables whose rows belong to no company: they are the same for all.
SHARED: frozenset[type[Model]] = frozenset({SubscriptionTier, Plan, Price, InvoiceCounter, RelayLease})

Fields = dict[str, Any]
Made = dict[type[Model], list[Model]]
_HOUR = datetime.timedelta(hours=1)


def _people(marks: Marks, made: Made) -> list[Fields]:
    names = {"first_name": marks.text("first"), "last_name": marks.text("last"), "password": "!", "is_active": True}
    return [
        {**names, "username": f"{marks.word}.{role}", "role": role, "email": f"{role}@{marks.word}.example"}
        for role in (User.Role.TRADER, User.Role.COMPANY_ADMIN)
    ]


def _accounts(marks: Marks, made: Made) -> list[Fields]:
    return [{"owner": user, "login": str(marks.number()), "last_seen_at": timezone.now()} for user in made[User]]


def _between(marks: Marks, made: Made) -> list[Fields]:
    now = timezone.now()
    return [{"starts_at": now - _HOUR, "until": now + _HOUR}]


def _log_entries(marks: Marks, made: Made) -> list[Fields]:
    trader, admin = made[User]
    kind = ContentType.objects.get_for_model(User)
    return [{"user": admin, "content_type": kind, "object_id": str(trader.pk), "action_flag": CHANGE}]


# What cannot be told from the fields: a list of rows, each with the fields that are not left to ``_value``.
_ROWS: Mapping[type[Model], Callable[[Marks, Made], list[Fields]]] = {
    Company: lambda marks, made: [{"name": f"{marks.word} Capital", "slug": marks.word, "tier": _tier("PRO")}],
    User: _people,
    MT5Account: _accounts,
    Ban: _between,
    AuditEntry: lambda marks, made: [{"object_type": "user", "actor_id": made[User][1].pk}],
    OutboxEvent: lambda marks, made: [{"topic": "subscription-status", "key": str(made[Company][0].pk)}],
    LogEntry: _log_entries,
    Subscription: lambda marks, made: [
        {"state": "active", "paid_until": timezone.now() + 24 * _HOUR, "period_start": timezone.now() - 24 * _HOUR}
    ],
    Invoice: lambda marks, made: [{"number": f"INV-2026-{marks.word}", "net": 100, "tax": 11, "total": 111}],
    AccessGrant: lambda marks, made: [{"starts_at": timezone.now(), "ends_at": timezone.now() + _HOUR}],
    Refund: lambda marks, made: [{"amount": 1}],
    # Before an endpoint's message is understood, all that it has of a company is an order id.
    WebhookReceipt: lambda marks, made: [{"source": "midtrans", "verdict": "applied", "order_id": marks.text("order")}],
}


def marked_models() -> list[type[Model]]:
    """Every table with rows of companies, those first that others point at."""
    found = [model for app in _OUR_APPS for model in apps.get_app_config(app).get_models() if model not in SHARED]
    found += _OF_PACKAGES
    needs = {model: {target for target in _targets(model) if target in found} for model in found}
    for model in found:
        if model not in (Company, User):
            # Ids are copied to where no key points at the row.
            needs[model] |= {Company, User}
    return list(graphlib.TopologicalSorter(needs).static_order())


def make_rows(marks: Marks) -> Made:
    """At least one row in each of ``marked_models``."""
    made: Made = {}
    for model in marked_models():
        given = _ROWS[model](marks, made) if model in _ROWS else [{}]
        made[model] = [_make(model, marks, made, fields) for fields in given]
    return made


def make_shared() -> None:
    """Tiers and prices, where a test before has emptied the tables of what the migrations had put there."""
    limits = {field.name: 10 for field in SubscriptionTier._meta.concrete_fields if field.name.endswith("_limit")}
    for rank, code in enumerate(("FREE", "PRO", "ENTERPRISE")):
        tier = SubscriptionTier.objects.get_or_create(code=code, defaults=limits)[0]
        plan = Plan.objects.get_or_create(tier=tier, defaults={"name": code, "rank": rank})[0]
        if not plan.prices.exists():
            Price.objects.create(plan=plan, interval="monthly", amount=499_000)


def _make(model: type[Model], marks: Marks, made: Made, given: Fields) -> Model:
    values = {**given}
    for field in model._meta.concrete_fields:
        if field.name not in given and field.attname not in given:
            values[field.attname] = _value(field, marks, made)
    row = model(**values)
    row.save(force_insert=True)
    return row


def _value(field: Any, marks: Marks, made: Made) -> Any:
    """Something of the company's wherever the field takes it, else its default."""
    if field.is_relation:
        return _reference(field, made)
    if isinstance(field, models.UUIDField):
        company = made.get(Company)
        return company[0].pk if field.name == "company_id" and company else marks.uuid()
    if isinstance(field, models.AutoField | models.BigAutoField):
        return marks.number()
    if isinstance(field, models.BinaryField):
        return marks.text(field.name).encode()
    if isinstance(field, models.JSONField):
        return {"note": marks.text(field.name)} if field.default is dict else field.get_default()
    if isinstance(field, models.CharField | models.TextField) and not field.choices:
        if isinstance(field, models.URLField):
            return f"https://{marks.text('page')}.example/"
        return marks.text(field.name, field.max_length)
    if field.has_default() or field.null:
        return field.get_default()
    if isinstance(field, models.DateTimeField):
        return timezone.now()
    if isinstance(field, models.DateField):
        return timezone.localdate().replace(day=1)
    return field.choices[0][0] if field.choices else 1


def _reference(field: Any, made: Made) -> Any:
    target = field.related_model
    if target in SHARED:
        return target._default_manager.order_by("pk").values_list("pk", flat=True).last()
    rows = made.get(target)
    return rows[0].pk if rows else None


def _targets(model: type[Model]) -> set[Any]:
    return {f.related_model for f in model._meta.concrete_fields if f.is_relation and f.related_model is not model}


def _tier(code: str) -> SubscriptionTier:
    return SubscriptionTier.objects.get(code=code)


def unknown_key(model: type[Model], nobody: Marks, name: str = "") -> str:
    """What no row of the model has, in the form of those that there are: an id, or the field ``name``."""
    if name:
        given = _ROWS[model](nobody, {})[0]
        return str(given[name])
    is_uuid = isinstance(model._meta.pk, models.UUIDField)
    return str(nobody.uuid() if is_uuid else nobody.number())
