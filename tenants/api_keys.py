"""Long-lived keys of terminals. Room: tenants.

``gwk_<prefix>_<secret>``: the secret has 256 random bits, so a plain SHA-256 is enough to keep (nothing to guess), and
looking it up by its digest compares no secret byte by byte.
"""

import datetime
import hashlib
import re
import secrets

from django.db.models import Q
from django.utils import timezone

from tenants.models import ApiKey, User

PREFIX_LENGTH = 8
KEY_FORM = re.compile(r"gwk_[a-z0-9]{8}_[A-Za-z0-9_-]{43}")
_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
# last_used_at is good to the minute; a busy key must not write a row for every token.
_USE_RESOLUTION = datetime.timedelta(minutes=1)


def create_api_key(user: User, name: str, *, expires_at: datetime.datetime | None = None) -> str:
    """The key in clear, for this one time."""
    prefix = "".join(secrets.choice(_ALPHABET) for _ in range(PREFIX_LENGTH))
    key = f"gwk_{prefix}_{secrets.token_urlsafe(32)}"
    ApiKey.objects.create(user=user, name=name, prefix=f"gwk_{prefix}", digest=digest_of(key), expires_at=expires_at)
    return key


def digest_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def user_of_api_key(key: str) -> User | None:
    """The user of a key that is known, unexpired and not revoked, company and tier loaded; notes the use."""
    if KEY_FORM.fullmatch(key) is None:
        return None
    now = timezone.now()
    row = (
        ApiKey.objects.select_related("user__company__tier")
        .filter(Q(expires_at__isnull=True) | Q(expires_at__gt=now), digest=digest_of(key), revoked_at__isnull=True)
        .first()
    )
    if row is None:
        return None
    if row.last_used_at is None or now - row.last_used_at > _USE_RESOLUTION:
        ApiKey.objects.filter(pk=row.pk).update(last_used_at=now)
    return row.user
