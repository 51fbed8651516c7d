"""Bans: set by a gateway or an operator, lifted by an operator. Room: tenants."""

import datetime

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.utils import timezone

from events import broadcast, outbox
from proto.gateway.v1 import events_pb2
from tenants import audit
from tenants.changes import touch
from tenants.models import ApiKey, Ban, User
from tenants.scope import Actor, find


def ban_source(account: str, api_key: str) -> str:
    """Who answers for what a connection sends: its MT5 account, else its API key (an id); "" without both."""
    if account:
        return f"account {account}"
    return f"key {api_key}" if api_key else ""


def earned_by(account: str, api_key: str, session_id: str) -> str:
    """Whose messages a ban is for, in words; ``api_key``: how the key is called here."""
    parts = [f"MT5 account {account}"] if account else [f"API key {api_key}"] if api_key else []
    if session_id:
        parts.append(f"connection {session_id}")
    return ", ".join(parts)


def ban(
    actor: Actor,
    user_id: str,
    reason: str,
    *,
    starts_at: float,
    until: float,
    repeat: int,
    detail: str = "",
    account: str = "",
    api_key: str = "",
    session_id: str = "",
    is_for_all: bool = True,
) -> Ban:
    """Writes a ban down; times in Unix seconds. Raises NotVisible, and PermissionDenied for a company's people.

    ``account``, ``api_key`` (an id), ``session_id``: of the connection that earned it; see ``Ban``.
    """
    if not actor.sees_all:
        raise PermissionDenied("only an operator bans")
    with transaction.atomic():
        user = find(actor, User, pk=user_id)
        row, is_new = Ban.objects.get_or_create(
            user=user,
            starts_at=datetime.datetime.fromtimestamp(starts_at, tz=datetime.UTC),
            defaults={
                "reason": reason,
                "detail": detail[:200],
                "until": datetime.datetime.fromtimestamp(until, tz=datetime.UTC),
                "repeat": repeat,
                "account": account[:20],
                "api_key": ApiKey.objects.filter(user=user, pk=api_key).first() if api_key else None,
                "session_id": session_id[:32],
                "is_for_all": is_for_all,
            },
        )
        if not is_new:
            # Written before by a gateway that did not hear of it.
            return row
        audit.record(actor, "ban", row, company_id=user.company_id, after=audit.snapshot(row))
        told = {
            "reason": reason,
            "until": str(int(until * 1000)),
            "detail": row.detail,
            "account": row.account,
            "api_key": row.api_key.prefix if row.api_key is not None else "",
            "session_id": row.session_id,
            "is_for_all": "yes" if is_for_all else "no",
        }
        _tell(user, "user_banned", told)
        if user.company_id is not None:
            touch({user.company_id})
    return row


def lift_bans(actor: Actor, user_id: str) -> int:
    """Lets a user in again at once; how many bans stood."""
    if not actor.sees_all:
        raise PermissionDenied("only an operator lifts bans")
    with transaction.atomic():
        user = find(actor, User, pk=user_id)
        now = timezone.now()
        standing = list(Ban.objects.select_for_update().filter(user=user, lifted_at__isnull=True, until__gt=now))
        for row in standing:
            before = audit.snapshot(row)
            row.lifted_at, row.lifted_by = now, actor.name
            row.save(update_fields=["lifted_at", "lifted_by"])
            audit.record(actor, "lift", row, company_id=user.company_id, before=before, after=audit.snapshot(row))
        # Also without a row: a gateway may hold a ban that it could not write down.
        broadcast.announce({"kind": "unban", "user_id": str(user.pk), "at": now.timestamp()})
        if standing:
            _tell(user, "ban_lifted", {})
        if user.company_id is not None:
            touch({user.company_id})
    return len(standing)


def _tell(user: User, activity: str, detail: dict[str, str]) -> None:
    event = events_pb2.UserActivity(
        user_id=str(user.pk),
        company_id=str(user.company_id or ""),
        activity=activity,
        occurred_at=int(timezone.now().timestamp() * 1000),
        detail=detail,
    )
    outbox.record(settings.GATEWAY_ACTIVITY_TOPIC, event.user_id, event.SerializeToString())
