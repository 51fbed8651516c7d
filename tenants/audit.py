"""Writes the audit log. Room: tenants."""

import uuid
from collections.abc import Mapping
from typing import Any

from django.db.models import Model

from tenants.models import AuditEntry
from tenants.scope import Actor

# Fields whose content nobody may read back.
_SECRET = frozenset({"password", "digest"})
# Fields that say nothing a reader wants to know.
_NOISE = frozenset({"id", "access_version", "updated_at", "last_login", "last_used_at", "last_seen_at", "is_online"})
_TEXT_LIMIT = 500


def snapshot(row: Model, earlier: Model | None = None) -> dict[str, str]:
    """The row's fields as text, by name; of a secret only that there is one, and whether ``earlier`` had another."""
    values = {}
    for field in row._meta.concrete_fields:
        value = getattr(row, field.attname)
        if field.name in _SECRET:
            is_other = earlier is not None and getattr(earlier, field.attname) != value
            values[field.name] = "*** (another)" if is_other else "***"
        elif field.name not in _NOISE:
            values[field.name] = "" if value is None else str(value)[:_TEXT_LIMIT]
    return values


def record(
    actor: Actor,
    action: str,
    row: Model,
    *,
    company_id: uuid.UUID | None,
    before: Mapping[str, str] | None = None,
    after: Mapping[str, str] | None = None,
) -> None:
    """One entry, in the caller's transaction; of ``before`` and ``after`` only what differs is kept."""
    old, new = dict(before or {}), dict(after or {})
    changed = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
    AuditEntry.objects.create(
        actor_id=actor.user_id,
        actor=actor.name or "anonymous",
        address=actor.address[:64],
        company_id=company_id,
        action=action,
        object_type=str(row._meta.model_name),
        object_id=str(row.pk),
        object_name=str(row)[:200],
        before=_only(old, changed),
        after=_only(new, changed),
    )


def _only(values: dict[str, str], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in sorted(values.items()) if name in names}
