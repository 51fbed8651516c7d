"""Holding back who guesses passwords and codes. Room: tenants.

django-axes counts the failures of a name from an address; the second step counts as well. What it stores is read here
and nowhere else.
"""

import ipaddress
import math
from typing import Any

import structlog
from axes.handlers.proxy import AxesProxyHandler
from axes.models import AccessAttempt
from axes.signals import user_locked_out
from django.conf import settings
from django.contrib.auth import authenticate
from django.contrib.auth.signals import user_login_failed
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from tenants.models import User
from tenants.signin.pages import show
from tenants.signin.people import people

log = structlog.get_logger(__name__)


def client_address(request: HttpRequest) -> str | None:
    """None where the server knows none: a Unix socket without a trusted proxy before it."""
    return request.META.get("REMOTE_ADDR") or None


def client_network(request: HttpRequest) -> str | None:
    """By what attempts are counted: the address, of IPv6 its /64, which is what one customer has to choose from."""
    address = client_address(request)
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return None
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(parsed) >> 64 << 64))


def is_locked_out(request: HttpRequest, username: str) -> bool:
    return not AxesProxyHandler.is_allowed(request, {"username": username})


def count_failure(request: HttpRequest, username: str) -> None:
    """A wrong code; the answer of this request becomes the lock-out page when it was one too many."""
    user_login_failed.send(sender=__name__, credentials={"username": username}, request=request)


def password_is_right(request: HttpRequest, user: User, password: str) -> bool:
    """Asks somebody who is signed in once more; wrong ones count."""
    return authenticate(request, username=user.get_username(), password=password) == user


def locked_out(
    request: HttpRequest, _response: HttpResponse | None, credentials: dict[str, Any] | None
) -> HttpResponse:
    """The lock-out page: 429, with the seconds until the next attempt in Retry-After."""
    username = (credentials or {}).get("username")
    newest = (
        AccessAttempt.objects.filter(username=username, ip_address=client_network(request))
        .order_by("-attempt_time")
        .values_list("attempt_time", flat=True)
        .first()
    )
    now = timezone.now()
    until = (newest or now) + settings.AXES_COOLOFF_TIME
    wait = max(1, math.ceil((until - now).total_seconds()))
    context = {"until": until, "minutes": math.ceil(wait / 60)}
    answer = show(request, "signin/locked_out.html", context, status=429)
    answer["Retry-After"] = str(wait)
    return answer


@receiver(user_locked_out)
def _log_lock_out(request: HttpRequest, ip_address: str | None, username: str | None, **_: Any) -> None:
    # Sent for each attempt during a lock-out too; those counted nothing, and are not worth a line each.
    if getattr(request, "axes_failures_since_start", None) is None:
        return
    user_id = people().filter(username=username).values_list("pk", flat=True).first()
    # The name itself stays out of the log: people type passwords into the wrong field.
    log.warning("sign_in_locked_out", user_id=str(user_id or ""), address=ip_address or "")
