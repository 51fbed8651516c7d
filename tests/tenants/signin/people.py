"""People with passwords, their phones, and their way through the sign-in."""

import base64
import hashlib
import hmac
import re
import struct
import time
from typing import Any

from django.test import Client
from django_otp.plugins.otp_totp.models import TOTPDevice

from tenants.models import User
from tenants.signin import devices

PASSWORD = "a long enough password"
OTHER_PASSWORD = "quite another password"


def with_password(user: User, password: str = PASSWORD) -> User:
    user.set_password(password)
    user.save()
    return user


def code_of(key: str, *, steps: int = 0) -> str:
    """What an app with this secret (hex) shows now, or some steps of 30 s from now (RFC 6238)."""
    counter = struct.pack(">Q", int(time.time()) // 30 + steps)
    digest = hmac.new(bytes.fromhex(key), counter, hashlib.sha1).digest()
    offset = digest[-1] & 15
    return f"{(struct.unpack('>I', digest[offset : offset + 4])[0] & 0x7FFFFFFF) % 1_000_000:06d}"


def wrong_code(key: str) -> str:
    """Six digits that fit at no time near now."""
    right = {code_of(key, steps=steps) for steps in range(-5, 6)}
    return next(code for code in (f"{number:06d}" for number in range(100)) if code not in right)


def with_app(user: User) -> tuple[TOTPDevice, list[str]]:
    """A confirmed app that no code was used of yet, and recovery codes."""
    device = TOTPDevice.objects.create(user=user, name="app", confirmed=True)
    return device, devices.renew_recovery_codes(user)


def give_password(client: Client, username: str, password: str = PASSWORD, **extra: Any) -> Any:
    return client.post("/admin/login/", {"username": username, "password": password, "next": "/admin/"}, **extra)


def give_code(client: Client, code: str, **extra: Any) -> Any:
    return client.post("/admin/login/code/", {"code": code}, **extra)


def is_inside(client: Client) -> bool:
    """Whether the admin's first page answers this browser."""
    return bool(client.get("/admin/").status_code == 200)


def shown_key(answer: Any) -> str:
    """The secret that a set-up page shows, as hex."""
    text = re.search(r'<code class="secret">([A-Z2-7 ]+)</code>', answer.content.decode())
    assert text is not None
    return base64.b32decode(text[1].replace(" ", "")).hex()


def shown_recovery_codes(answer: Any) -> list[str]:
    return re.findall(r"<code>([a-z0-9]{5}-[a-z0-9]{5})</code>", answer.content.decode())
