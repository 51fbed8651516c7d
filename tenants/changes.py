"""Every write to tenant rows: checked against the actor, counted under the company's lock, noted, announced.

Room: tenants. Each function is one transaction: the row, the audit entry, the company's higher access version and the
event for Kafka are there together or not at all; gateways hear of it on commit.
"""

import datetime
import uuid
from collections.abc import Collection, Iterable, Sequence

from django.conf import settings
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.db.models import F, Model
from django.utils import timezone
from django.utils.translation import gettext as _

from events import broadcast, outbox
from proto.gateway.v1 import events_pb2
from tenants import audit
from tenants.models import ActivePair, ApiKey, Company, Kick, MT5Account, RevokedToken, SubscriptionTier, User
from tenants.scope import Actor, NotVisible, company_ids_of, find, is_tenant_model, visible

# What a company admin may write, by model. Everything else of a row stays as it is, whatever a form sends.
COMPANY_WRITABLE: dict[type[Model], frozenset[str]] = {
    User: frozenset({
        "username", "first_name", "last_name", "email", "is_active", "password",
        "message_rate_limit", "connection_limit", "may_send_signals",
    }),
    MT5Account: frozenset({"login", "broker_server", "owner", "is_active"}),
    ActivePair: frozenset({"user", "symbol"}),
}  # fmt: skip
# Editable by Django's own say, written by the product alone.
_KEPT_BY_US = frozenset({"date_joined", "last_login"})
_KICK_MEMORY = datetime.timedelta(hours=1)


def save_row(actor: Actor, row: Model, *, action: str = "") -> None:
    """Adds or changes one row.

    Raises NotVisible for a row, or one it points at, of another company; PermissionDenied for a field that is not the
    actor's to write; ValidationError where the plan has no place left. A person who moves to another company, or to
    the operators, comes without password and API keys.
    """
    with transaction.atomic():
        touch(_save(actor, row, action))


def delete_rows(actor: Actor, rows: Iterable[Model]) -> None:
    """Raises NotVisible for a row of another company, PermissionDenied for what the actor may not delete."""
    with transaction.atomic():
        chosen = list(rows)
        gone = {row.pk for row in chosen if isinstance(row, Company)}
        touch(_delete(actor, chosen))
        for company_id in gone:
            _announce_deleted(company_id)


def set_users_active(actor: Actor, users: Sequence[User], *, is_active: bool) -> int:
    """Disables or enables; live connections of a disabled user end. How many were changed."""
    with transaction.atomic():
        ids = [user.pk for user in users]
        if not is_active and actor.user_id in ids:
            raise PermissionDenied("nobody disables their own account")
        chosen = visible(actor, User).filter(pk__in=ids)
        lock({user.company_id for user in chosen if user.company_id is not None})
        rows = list(chosen.all())
        if len(rows) != len(set(ids)):
            raise NotVisible("there is no such user")
        changed = [row for row in rows if row.is_active != is_active]
        for row in changed:
            before = audit.snapshot(row)
            row.is_active = is_active
            _note(actor, "enable" if is_active else "disable", row, before, audit.snapshot(row))
        User.objects.filter(pk__in=[row.pk for row in changed]).update(is_active=is_active)
        touch({row.company_id for row in changed if row.company_id is not None})
        return len(changed)


def set_company_status(actor: Actor, company: Company, status: Company.Status, reason: str = "") -> None:
    """Suspends, resumes or marks as unpaid; for operators and the product itself."""
    if not actor.sees_all:
        raise PermissionDenied("only an operator changes a company's status")
    with transaction.atomic():
        lock({company.pk})
        row = find(actor, Company, pk=company.pk)
        before = audit.snapshot(row)
        row.status, row.status_reason = status, reason[:200]
        row.save(update_fields=["status", "status_reason", "updated_at"])
        action = {"suspended": "suspend", "active": "resume", "unpaid": "mark_unpaid"}[status]
        _note(actor, action, row, before, audit.snapshot(row))
        touch({row.pk})
    company.status, company.status_reason = row.status, row.status_reason


def set_tier(actor: Actor, company: Company, tier: SubscriptionTier) -> None:
    """Another plan, at once; for operators and the product itself."""
    if not actor.sees_all:
        raise PermissionDenied("only an operator changes a company's plan")
    with transaction.atomic():
        # Read under the lock: the whole row is written, and a suspension meanwhile must not be taken back.
        lock({company.pk})
        row = find(actor, Company, pk=company.pk)
        row.tier = tier
        save_row(actor, row, action="set_tier")


def set_paid_until(actor: Actor, company: Company, paid_until: datetime.datetime | None) -> None:
    """When paid time ends; None: not limited. A company marked as unpaid is active again."""
    if not actor.sees_all:
        raise PermissionDenied("only the product changes what is paid")
    with transaction.atomic():
        lock({company.pk})
        row = find(actor, Company, pk=company.pk)
        row.paid_until = paid_until
        if row.status == Company.Status.UNPAID:
            row.status, row.status_reason = Company.Status.ACTIVE, ""
        save_row(actor, row, action="set_paid_until")


def set_pairs(actor: Actor, user: User, symbols: Collection[str]) -> tuple[int, int]:
    """Makes exactly these the user's active pairs: (added, removed). Raises ValidationError when they are too many."""
    with transaction.atomic():
        row = find(actor, User, pk=user.pk)
        lock({row.company_id} if row.company_id else set())
        held = {pair.symbol: pair for pair in ActivePair.objects.filter(user=row)}
        gone = [pair for symbol, pair in held.items() if symbol not in symbols]
        added = [symbol for symbol in dict.fromkeys(symbols) if symbol not in held]
        concerned = _delete(actor, gone)
        for symbol in added:
            concerned |= _save(actor, ActivePair(user=row, symbol=symbol))
        # One version and one event, however many pairs.
        touch(concerned)
        return len(added), len(gone)


def revoke_token(actor: Actor, jti: str, user: User, expires_at: float) -> None:
    """Live connections of the token end; a second call changes nothing. ``expires_at``: Unix seconds."""
    with transaction.atomic():
        find(actor, User, pk=user.pk)
        moment = datetime.datetime.fromtimestamp(expires_at, tz=datetime.UTC)
        row, is_new = RevokedToken.objects.get_or_create(jti=jti, defaults={"user": user, "expires_at": moment})
        if is_new:
            _note(actor, "revoke", row, {}, audit.snapshot(row))
            broadcast.announce({"kind": "token", "jti": jti, "expires_at": expires_at})


def revoke_api_keys(actor: Actor, keys: Iterable[ApiKey]) -> int:
    """No new tokens come from these keys, and connections with tokens of theirs end. How many were revoked."""
    with transaction.atomic():
        rows = list(visible(actor, ApiKey).filter(pk__in=[key.pk for key in keys], revoked_at__isnull=True))
        for row in rows:
            before = audit.snapshot(row)
            row.revoked_at = timezone.now()
            row.save(update_fields=["revoked_at"])
            _note(actor, "revoke", row, before, audit.snapshot(row))
        touch({company_id for row in rows for company_id in company_ids_of(row)})
        return len(rows)


def kick(actor: Actor, user_id: str, session_id: str = "", *, reason: str = "") -> None:
    """Ends one live connection of a user, or all of them; the client may come back. ``reason``: for the audit log."""
    with transaction.atomic():
        user = find(actor, User, pk=user_id)
        Kick.objects.filter(created_at__lt=timezone.now() - _KICK_MEMORY).delete()
        row = Kick.objects.create(user=user, session_id=session_id[:32])
        note = {"user": str(user), "session_id": session_id[:32]}
        _note(actor, "kick", row, {}, {**note, "reason": reason[:200]} if reason else note)
        # The id as gateways write it, however the caller did.
        who, at = str(user.pk), row.created_at.timestamp()
        broadcast.announce({"kind": "kick", "id": row.pk, "user_id": who, "session_id": row.session_id, "at": at})


def note_following(actor: Actor, user_id: str, *, with_prices: bool) -> None:
    """Writes down that the actor begins to look at a user's messages.

    Raises NotVisible for a user of another company, PermissionDenied where the look is not the actor's to have.
    """
    with transaction.atomic():
        user = find(actor, User, pk=user_id)
        if not (actor.sees_all or (actor.is_company_admin and not with_prices)):
            raise PermissionDenied("only an operator looks at prices")
        _note(actor, "follow", user, {}, {"with_prices": "yes" if with_prices else "no"})


def prune_revoked_tokens() -> int:
    """Deletes the rows of tokens that have expired by themselves an hour ago; how many."""
    old = timezone.now() - datetime.timedelta(hours=1)
    return RevokedToken.objects.filter(expires_at__lt=old).delete()[0]


def lock(company_ids: Collection[uuid.UUID]) -> None:
    """Holds the companies' rows until the transaction ends: whoever counts places waits for its turn.

    SQLite has one writer, whose transaction is IMMEDIATE: it holds the lock from its beginning.
    """
    list(Company.objects.select_for_update().filter(pk__in=company_ids).order_by("pk").values_list("pk"))


def touch(company_ids: Collection[uuid.UUID]) -> None:
    """What users of these companies may do has changed: call it in the transaction of the change."""
    if not company_ids:
        return
    Company.objects.filter(pk__in=company_ids).update(access_version=F("access_version") + 1)
    _publish(
        [
            events_pb2.SubscriptionStatus(
                company_id=str(company.pk),
                tier=company.tier.code,
                status=company.status,
                paid_until=int(company.paid_until.timestamp() * 1000) if company.paid_until else 0,
                access_version=company.access_version,
                occurred_at=_now_ms(),
            )
            for company in Company.objects.filter(pk__in=company_ids).select_related("tier")
        ]
    )


def _announce_deleted(company_id: uuid.UUID) -> None:
    _publish([events_pb2.SubscriptionStatus(company_id=str(company_id), status="deleted", occurred_at=_now_ms())])


def _publish(statuses: Sequence[events_pb2.SubscriptionStatus]) -> None:
    events = [(status.company_id, status.SerializeToString()) for status in statuses]
    outbox.record_all(settings.GATEWAY_SUBSCRIPTION_TOPIC, events)
    for status in statuses:
        broadcast.announce({"kind": "access", "company_id": status.company_id, "version": status.access_version})


def username_prefix(company: Company) -> str:
    """What the usernames begin with that a company's admin gives. A short name holds no dot, so that a taken name can
    only be one of their own: nobody learns by trying which names another company has."""
    return f"{company.slug}."


def _save(actor: Actor, row: Model, action: str = "") -> set[uuid.UUID]:
    """The companies whose users it concerns; the caller touches them."""
    model, is_new = type(row), row._state.adding
    concerned = set() if is_new else company_ids_of(find(actor, model, pk=row.pk))
    if not actor.sees_all:
        _check_model(actor, row)
    _check_references(actor, row)
    concerned |= company_ids_of(row)
    lock(concerned)
    # Read again under the lock: what another has changed meanwhile must not be taken for unchanged.
    stored = None if is_new else find(actor, model, pk=row.pk)
    if not actor.sees_all:
        _check_fields(actor, row, stored)
    row.full_clean()
    before = {} if stored is None else audit.snapshot(stored)
    moved = row if isinstance(row, User) and isinstance(stored, User) and row.company_id != stored.company_id else None
    if moved is not None:
        # Whoever chose the password or was shown a key in the other company may still know them.
        moved.set_unusable_password()
    row.save()
    _note(actor, action or ("add" if is_new else "change"), row, before, audit.snapshot(row, stored))
    if moved is not None:
        revoke_api_keys(actor, moved.api_keys.all())
    if isinstance(row, MT5Account):
        # Of one who had the account before: it would send for an account of somebody else's.
        _revoke_bound(actor, row.api_keys.exclude(user=row.owner_id))
    # A tier's new limits, or a company's new tier, concern whoever has it now.
    return concerned | company_ids_of(row)


def _delete(actor: Actor, rows: Sequence[Model]) -> set[uuid.UUID]:
    """The companies whose users it concerns; the caller touches them."""
    concerned = {company_id for row in rows for company_id in company_ids_of(row)}
    lock(concerned)
    for row in rows:
        find(actor, type(row), pk=row.pk)
        if not actor.sees_all and not (actor.is_company_admin and type(row) in COMPANY_WRITABLE):
            raise PermissionDenied("this is not yours to delete")
        if row.pk == actor.user_id:
            raise PermissionDenied("nobody deletes their own account")
        _note(actor, "delete", row, audit.snapshot(row), {})
    for row in rows:
        if isinstance(row, MT5Account):
            # Without its account it would be good for all of the user's.
            _revoke_bound(actor, row.api_keys.all())
        row.delete()
    return concerned


def _revoke_bound(actor: Actor, keys: Iterable[ApiKey]) -> None:
    """Of an account that goes: a company's admin deletes it, and its keys are theirs to revoke as well."""
    rows = list(keys)
    if rows:
        revoke_api_keys(actor, rows)


def _check_model(actor: Actor, row: Model) -> None:
    """Raises for a kind of row that is not a company admin's to write; a new row gets the company of the actor."""
    if type(row) not in COMPANY_WRITABLE or not actor.is_company_admin:
        raise PermissionDenied("this is not yours to change")
    if row._state.adding and isinstance(row, User | MT5Account) and row.company_id is None:
        row.company_id = actor.company_id


def _check_references(actor: Actor, row: Model) -> None:
    """Raises NotVisible, in the same words, for a reference to another company's row and to one that does not exist."""
    for field in row._meta.concrete_fields:
        target, key = field.related_model, getattr(row, field.attname)
        if key is not None and isinstance(target, type) and is_tenant_model(target):
            find(actor, target, pk=key)


def _check_fields(actor: Actor, row: Model, stored: Model | None) -> None:
    """Raises for a field that is not a company admin's to write."""
    writable = COMPANY_WRITABLE[type(row)]
    if isinstance(row, User) and stored is not None:
        writable -= {"username"}
    if stored is None:
        stored = type(row)()
        if isinstance(stored, User | MT5Account):
            stored.company_id = actor.company_id
    for field in row._meta.concrete_fields:
        if field.name in writable or field.primary_key:
            continue
        if not field.editable or field.name in _KEPT_BY_US:
            # No form has it, and it may have changed since the row was read.
            setattr(row, field.attname, getattr(stored, field.attname))
        elif getattr(row, field.attname) != getattr(stored, field.attname):
            raise PermissionDenied(f"{field.verbose_name} is not yours to change")
    if isinstance(row, User):
        _check_person(actor, row)


def _check_person(actor: Actor, row: User) -> None:
    if row._state.adding and row.company is not None and not row.username.startswith(username_prefix(row.company)):
        prefix = username_prefix(row.company)
        raise ValidationError({"username": _("usernames of your company begin with %(prefix)s") % {"prefix": prefix}})
    if row.pk == actor.user_id and not row.is_active:
        raise PermissionDenied("nobody disables their own account")


def _note(actor: Actor, action: str, row: Model, before: dict[str, str], after: dict[str, str]) -> None:
    concerned = company_ids_of(row)
    if isinstance(row, Kick):
        concerned = company_ids_of(row.user)
    company_id = next(iter(concerned)) if len(concerned) == 1 else None
    audit.record(actor, action, row, company_id=company_id, before=before, after=after)


def _now_ms() -> int:
    return int(timezone.now().timestamp() * 1000)
