"""Second factors: an authenticator app and recovery codes. Room: tenants.

The only importer of django-otp. A person has one app at most, and ten recovery codes with it.
"""

import math
import re
import secrets
import time
from base64 import b32encode
from binascii import unhexlify
from typing import TypeAlias

import structlog
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.crypto import salted_hmac
from django_otp import login as otp_login
from django_otp import verify_token
from django_otp.middleware import OTPMiddleware
from django_otp.oath import TOTP
from django_otp.plugins.otp_static.models import StaticDevice, StaticToken
from django_otp.plugins.otp_totp.models import TOTPDevice

from tenants.models import User
from tenants.signin.people import people

log = structlog.get_logger(__name__)

AnyDevice: TypeAlias = TOTPDevice | StaticDevice
RECOVERY_CODE_COUNT = 10
_APP_CODE = re.compile(r"[0-9]{6}")
_ISSUER = "Trading gateway"
# Without the letters and digits that are taken for each other; 31 ** 10 is more than 49 bits.
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"


class Throttled(Exception):
    """Too many wrong codes; ``retry_after`` in whole seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"wait {retry_after} s")
        self.retry_after = retry_after


class AlreadySetUp(Exception):
    """The person has an app already, set up from somewhere else in the meantime."""


def has_device(user: User) -> bool:
    return bool(TOTPDevice.objects.filter(user=user, confirmed=True).exists())


def is_verified(request: HttpRequest) -> bool:
    """Whether the second step was passed in this session, with a device that still is the person's."""
    return getattr(request.user, "otp_device", None) is not None


def attach(request: HttpRequest) -> None:
    """Gives ``request.user`` the device of its session, as the middleware does for requests of browsers."""
    OTPMiddleware(lambda _request: HttpResponse())(request)


def mark_verified(request: HttpRequest, device: AnyDevice) -> None:
    otp_login(request, device)


def new_key() -> str:
    """A secret of 20 bytes, as hex."""
    return secrets.token_hex(20)


def key_as_text(key: str) -> str:
    """The secret as authenticator apps take it typed: base32 in groups of four."""
    text = b32encode(unhexlify(key)).decode()
    return " ".join(text[i : i + 4] for i in range(0, len(text), 4))


def provisioning_url(user: User, key: str) -> str:
    """otpauth://, for the QR code."""
    url: str = TOTPDevice(user=user, key=key).config_url
    return url


def set_up(user: User, key: str, code: str) -> tuple[TOTPDevice, list[str]] | None:
    """Makes the app the person's when ``code`` proves that it has the secret: the device and the recovery codes.

    None for a wrong code. Raises AlreadySetUp. The proving code does not pass a second step any more.
    """
    code = _plain(code)
    if _APP_CODE.fullmatch(code) is None:
        return None
    totp = TOTP(unhexlify(key))
    totp.time = time.time()
    if not totp.verify(int(code), tolerance=1):
        return None
    with transaction.atomic():
        # Of two set-ups at once the second finds the first.
        people().select_for_update().get(pk=user.pk)
        if has_device(user):
            raise AlreadySetUp
        remove_devices(user)
        device = TOTPDevice.objects.create(user=user, name="app", key=key, last_t=totp.t(), drift=totp.drift)
        codes = renew_recovery_codes(user)
    log.info("two_factor_set_up", user_id=str(user.pk))
    return device, codes


def renew_recovery_codes(user: User) -> list[str]:
    """New recovery codes; the older ones are void. Only their digests are kept."""
    codes = ["".join(secrets.choice(_ALPHABET) for _ in range(10)) for _ in range(RECOVERY_CODE_COUNT)]
    with transaction.atomic():
        device, _ = StaticDevice.objects.get_or_create(user=user, defaults={"name": "recovery", "confirmed": True})
        device.token_set.all().delete()
        StaticToken.objects.bulk_create(StaticToken(device=device, token=_digest(code)) for code in codes)
    return [f"{code[:5]}-{code[5:]}" for code in codes]


def recovery_codes_left(user: User) -> int:
    return int(StaticToken.objects.filter(device__user=user).count())


def check_code(user: User, code: str) -> AnyDevice | None:
    """The device that ``code`` belongs to: six digits of the app, or a recovery code, which is used up by it.

    None for a wrong code. Raises Throttled while wrong codes are held back; the code is not looked at then.
    """
    code = _plain(code)
    is_app_code = _APP_CODE.fullmatch(code) is not None
    model = TOTPDevice if is_app_code else StaticDevice
    device = model.objects.filter(user=user, confirmed=True).first()
    if device is None:
        return None
    is_allowed, reason = device.verify_is_allowed()
    if not is_allowed:
        wait = (reason["locked_until"] - timezone.now()).total_seconds()
        raise Throttled(max(1, math.ceil(wait)))
    found: AnyDevice | None = verify_token(user, device.persistent_id, code if is_app_code else _digest(code))
    if found is not None and not is_app_code:
        log.warning("recovery_code_used", user_id=str(user.pk), left=recovery_codes_left(user))
    return found


def remove_devices(user: User) -> int:
    """Takes away the app and the recovery codes, for a device that is lost: how many devices there were.

    Sessions that had passed the second step with them end where a second step is required.
    """
    with transaction.atomic():
        count = 0
        for model in (TOTPDevice, StaticDevice):
            rows = model.objects.filter(user=user)
            count += rows.count()
            rows.delete()
    if count:
        log.warning("two_factor_removed", user_id=str(user.pk))
    return count


def _plain(code: str) -> str:
    return re.sub(r"[\s-]", "", code).lower()


def _digest(code: str) -> str:
    """What the database keeps of a recovery code: of no use to whoever reads it."""
    return salted_hmac("tenants.signin.recovery", code, algorithm="sha256").hexdigest()[:16]
