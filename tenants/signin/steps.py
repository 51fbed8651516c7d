"""Where a person is between the password and the admin. Room: tenants.

A session counts as signed in only when all steps are passed: until then it holds who has given the password, and when.
"""

import time
from dataclasses import dataclass
from importlib import import_module
from typing import Literal

from django.conf import settings
from django.contrib.auth import get_user, login
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.utils.crypto import constant_time_compare

from tenants.models import User
from tenants.signin import devices
from tenants.signin.people import people

# Seconds in which the second step must follow the password.
PENDING_TTL = 600.0
_PENDING_KEY = "signin_pending"
_BACKEND = "django.contrib.auth.backends.ModelBackend"

Step = Literal["enter", "code", "set-up"]


@dataclass(frozen=True)
class Pending:
    """Somebody who has given the password and nothing more; ``next_url``: where they wanted to go, checked."""

    user: User
    next_url: str


def is_console_user(user: AbstractBaseUser | AnonymousUser) -> bool:
    """Whether the admin is for this person at all. Flags count for nothing without the role that belongs to them."""
    if not isinstance(user, User) or not user.is_active:
        return False
    return user.role == User.Role.COMPANY_ADMIN or (user.role == User.Role.OPERATOR and user.is_superuser)


def is_required() -> bool:
    return bool(settings.GATEWAY_TWO_FACTOR == "required")


def next_step(user: User) -> Step:
    """What follows the password."""
    if devices.has_device(user):
        return "code"
    return "set-up" if is_required() else "enter"


def may_enter(request: HttpRequest) -> bool:
    """Whether the session of this request has passed all steps."""
    user = request.user
    if not isinstance(user, User) or not is_console_user(user):
        return False
    return devices.is_verified(request) or next_step(user) == "enter"


def person_of_session(session_key: str) -> User | None:
    """Who may enter by this session at this moment, whatever a request that began earlier still knows."""
    request = HttpRequest()
    request.session = import_module(settings.SESSION_ENGINE).SessionStore(session_key)
    request.user = get_user(request)
    devices.attach(request)
    user = request.user
    return user if isinstance(user, User) and may_enter(request) else None


def begin(request: HttpRequest, user: User, next_url: str) -> Step:
    """The password was right: signs in, or remembers that the second step is due. Says which step is next."""
    step = next_step(user)
    if step == "enter":
        finish(request, user)
        return step
    # A new key, as whoever planted the old one must not follow into the second step; nobody else stays signed in.
    request.session.flush()
    request.session[_PENDING_KEY] = {
        "user": str(user.pk),
        "at": time.time(),
        "proof": user.get_session_auth_hash(),
        "next": next_url,
    }
    return step


def pending(request: HttpRequest) -> Pending | None:
    """Who has given the password in this session, unless it is too long ago or the password has changed since."""
    held = request.session.get(_PENDING_KEY)
    if not held or not 0 <= time.time() - held["at"] <= PENDING_TTL:
        return None
    try:
        user = people().get(pk=held["user"])
    except (User.DoesNotExist, ValidationError):
        return None
    if not is_console_user(user) or not constant_time_compare(held["proof"], user.get_session_auth_hash()):
        return None
    return Pending(user, held["next"])


def finish(request: HttpRequest, user: User, device: devices.AnyDevice | None = None) -> None:
    """All steps are passed: signs in under a new session key."""
    request.session.pop(_PENDING_KEY, None)
    login(request, user, backend=_BACKEND)
    if device is not None:
        devices.mark_verified(request, device)
