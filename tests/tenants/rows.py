"""One row of each kind for each person of the cast, written as the database would have them after a busy day."""

import datetime
import uuid
from collections.abc import Callable, Collection
from typing import Any

import msgspec
import pytest
from django.apps import apps
from django.db.models import Model
from django.utils import timezone

from events.models import OutboxEvent
from proto.gateway.v1 import events_pb2
from tenants import changes
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
from tests.tenants.cast import Cast

# How a person's row of each kind is made; ``number`` tells the rows of two people apart.
MAKERS: dict[type[Model], Callable[[User, int], Model]] = {
    MT5Account: lambda user, number: MT5Account.objects.create(
        login=str(100 + number), broker_server="B", company=company_of(user), owner=user
    ),
    ActivePair: lambda user, number: ActivePair.objects.create(user=user, symbol="EURUSD"),
    ApiKey: lambda user, number: ApiKey.objects.create(
        user=user, name="VPS", prefix=f"gwk_{number:08d}", digest=f"{number:064d}"
    ),
    RevokedToken: lambda user, number: RevokedToken.objects.create(
        jti=f"{number:032d}", user=user, expires_at=timezone.now() + datetime.timedelta(hours=1)
    ),
    Ban: lambda user, number: make_ban(user),
}


def company_of(user: User) -> Company:
    assert user.company is not None
    return user.company


def make_ban(user: User, **fields: Any) -> Ban:
    """One that began a minute ago and stands for an hour."""
    now = timezone.now()
    values = {
        "reason": Ban.Reason.FLOODING,
        "starts_at": now - datetime.timedelta(minutes=1),
        "until": now + datetime.timedelta(hours=1),
    }
    return Ban.objects.create(user=user, **{**values, **fields})


class Rows:
    """``of(model)``: the rows of Alice, Bob and Charlie; companies have theirs at Alice's and Charlie's places."""

    def __init__(self, cast: Cast) -> None:
        self._people: dict[type[Model], dict[str, Model]] = {
            Company: {"alpha": cast.alpha, "beta": cast.beta},
            User: {"alice": cast.alice, "bob": cast.bob, "charlie": cast.charlie},
            SubscriptionTier: {"alpha": cast.alpha.tier},
            CompanyOverride: {
                name: CompanyOverride.objects.create(company=company, pair_limit=7)
                for name, company in (("alpha", cast.alpha), ("beta", cast.beta))
            },
            AuditEntry: {
                name: AuditEntry.objects.create(
                    actor="tests", company_id=company.pk, action="add", object_type="user", object_name=name
                )
                for name, company in (("alpha", cast.alpha), ("beta", cast.beta))
            },
        }
        for model, make in MAKERS.items():
            self._people[model] = {
                user.username: make(user, number) for number, user in enumerate((cast.alice, cast.bob, cast.charlie))
            }

    def of(self, model: type[Model]) -> dict[str, Model]:
        return self._people[model]


def new_user(username: str = "alpha.dora", **fields: Any) -> User:
    """With no password yet, not saved; the name is as Alice may give it."""
    user = User(username=username, **fields)
    user.set_unusable_password()
    return user


def told(topic: str = "subscription-status") -> list[Any]:
    """The events that wait for Kafka, oldest first, decoded."""
    kind = events_pb2.SubscriptionStatus if topic == "subscription-status" else events_pb2.UserActivity
    rows = OutboxEvent.objects.filter(topic=topic).order_by("id")
    return [kind.FromString(bytes(row.value)) for row in rows]


def everything() -> dict[str, list[dict[str, Any]]]:
    """All rows of the room and all events that wait, to see that nothing has changed."""
    models: list[type[Model]] = [*apps.get_app_config("tenants").get_models(), OutboxEvent]
    return {model._meta.label: list(model._default_manager.order_by("pk").values()) for model in models}


def announced(callbacks: list[Callable[[], object]]) -> list[dict[str, Any]]:
    """What these callbacks on commit would send to the gateways."""
    payloads = [getattr(callback, "payload", None) for callback in callbacks]
    return [msgspec.json.decode(payload) for payload in payloads if payload is not None]


def just_before_the_lock(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Lets ``act`` happen as if another transaction had held the company's lock and has committed now."""
    lock, waiting = changes.lock, [act]

    def wait_for_lock(company_ids: Collection[uuid.UUID]) -> None:
        if waiting:
            waiting.pop()()
        lock(company_ids)

    monkeypatch.setattr(changes, "lock", wait_for_lock)
