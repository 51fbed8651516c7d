"""Long-lived keys of terminals. Room: tenants.

``gwk_<prefix>_<secret>``: the secret has 256 random bits, so a plain SHA-256 is enough to keep (nothing to guess), and
looking it up by its digest compares no secret byte by byte.
"""

import datetime
import hashlib
import re
import secrets

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from tenants import audit
from tenants.changes import lock, touch
from tenants.models import ApiKey, MT5Account, User
from tenants.scope import Actor, company_ids_of, find

PREFIX_LENGTH = 8
KEY_START = "gwk_"
KEY_FORM = re.compile(r"gwk_[a-z0-9]{8}_[A-Za-z0-9_-]{43}")
_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
# last_used_at is good to the minute; a busy key must not write a row for every token.
_USE_RESOLUTION = datetime.timedelta(minutes=1)
# How long a key goes on working after another has taken its place.
ROTATION_OVERLAP = datetime.timedelta(hours=24)


def create_api_key(
    actor: Actor,
    user: User,
    name: str,
    *,
    scope: str = ApiKey.Scope.STREAM,
    expires_at: datetime.datetime | None = None,
    account: MT5Account | None = None,
) -> tuple[str, ApiKey]:
    """The key in clear, for this one time, and its row. ``account``: the one that the key is bound to.

    Raises NotVisible for a user of another company, and for an account that is not the user's.
    """
    prefix = "".join(secrets.choice(_ALPHABET) for _ in range(PREFIX_LENGTH))
    key = f"gwk_{prefix}_{secrets.token_urlsafe(32)}"
    with transaction.atomic():
        owner = find(actor, User, pk=user.pk)
        row = ApiKey.objects.create(
            user=owner,
            account=None if account is None else find(actor, MT5Account, pk=account.pk, owner=owner),
            name=name,
            scope=scope,
            prefix=f"gwk_{prefix}",
            digest=digest_of(key),
            expires_at=expires_at,
        )
        audit.record(actor, "add", row, company_id=owner.company_id, after=audit.snapshot(row))
        # A token of this key is only good for gateways that know of the key.
        touch({owner.company_id} if owner.company_id else set())
    return key, row


def rotate_api_key(actor: Actor, key: ApiKey, *, overlap: datetime.timedelta = ROTATION_OVERLAP) -> tuple[str, ApiKey]:
    """A new key in the place of ``key``, which goes on working for ``overlap``.

    Raises NotVisible, also for a key that has been revoked or replaced.
    """
    with transaction.atomic():
        # Of two at once the second finds the key replaced: there is one successor, and whoever asked has seen it.
        lock(company_ids_of(find(actor, ApiKey, pk=key.pk)))
        old = find(actor, ApiKey, pk=key.pk, revoked_at__isnull=True, replaced_by__isnull=True)
        before = audit.snapshot(old)
        clear, row = create_api_key(
            actor, old.user, old.name, scope=old.scope, expires_at=old.expires_at, account=old.account
        )
        end = timezone.now() + overlap
        old.expires_at = end if old.expires_at is None else min(old.expires_at, end)
        old.replaced_by = row
        old.save(update_fields=["expires_at", "replaced_by"])
        audit.record(actor, "rotate", old, company_id=old.user.company_id, before=before, after=audit.snapshot(old))
    return clear, row


def digest_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def usable_api_key(key: str) -> ApiKey | None:
    """The row of a key that is known, unexpired and not revoked, user and company loaded; notes the use."""
    if KEY_FORM.fullmatch(key) is None:
        return None
    now = timezone.now()
    row = (
        ApiKey.objects.select_related("user__company__tier", "account")
        .filter(Q(expires_at__isnull=True) | Q(expires_at__gt=now), digest=digest_of(key), revoked_at__isnull=True)
        .first()
    )
    if row is None:
        return None
    if row.last_used_at is None or now - row.last_used_at > _USE_RESOLUTION:
        ApiKey.objects.filter(pk=row.pk).update(last_used_at=now)
    return row


def user_of_api_key(key: str) -> User | None:
    row = usable_api_key(key)
    return None if row is None else row.user
