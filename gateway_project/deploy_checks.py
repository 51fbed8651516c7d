"""``check --deploy``: what a machine lacks on which the settings alone are right. Room: gateway_project.

Each check names one thing and the command or line that mends it. What Django checks by itself (DEBUG, a weak secret
key) and what the rooms check of their own settings (keys of tokens, Midtrans, the seller) is not here.
"""

import ipaddress
from collections.abc import Iterator, Sequence
from contextlib import closing
from email.utils import parseaddr
from typing import Any
from urllib.parse import urlsplit

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import DatabaseError, connections
from django.db.migrations.executor import MigrationExecutor
from django.http.request import validate_host

from gateway_project.static import COLLECT, uncollected
from tenants.access import has_operator

_LOOPBACK_NAMES = ("localhost", "ip6-localhost")
_CONNECT_TIMEOUT = 3


@register(Tags.security, deploy=True)
def static_files(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    if not settings.IS_PRODUCTION:
        return []
    missing = uncollected()
    if not missing:
        return []
    return [
        Error(
            f"{len(missing)} static files are not collected in {settings.STATIC_ROOT}, {missing[0]} for one",
            hint=f"run '{COLLECT}' with every new version: the proxy serves the console's styles from there",
            id="gateway.E018",
        )
    ]


@register(Tags.security, deploy=True)
def public_address(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    if not settings.IS_PRODUCTION:
        return []
    problems: list[CheckMessage] = []
    hint = "set GATEWAY_PUBLIC_URL=https://gateway.example: links in mails and the address for terminals begin with it"
    address, host = settings.GATEWAY_PUBLIC_URL, _host_of(settings.GATEWAY_PUBLIC_URL)
    if not address:
        problems.append(Error("GATEWAY_PUBLIC_URL is not set", hint=hint, id="gateway.E019"))
    elif not address.startswith("https://") or _is_loopback(host) or urlsplit(address).path:
        problems.append(
            Error(f"GATEWAY_PUBLIC_URL={address} is not the https address of a host", hint=hint, id="gateway.E019")
        )
    elif settings.ALLOWED_HOSTS and not validate_host(host, settings.ALLOWED_HOSTS):
        hint = f"add it: GATEWAY_ALLOWED_HOSTS={','.join([host, *settings.ALLOWED_HOSTS])}"
        problems.append(Error(f"GATEWAY_ALLOWED_HOSTS lacks {host}, the public address", hint=hint, id="gateway.E020"))
    if "*" in settings.ALLOWED_HOSTS:
        hint = "name the hosts: a request's own Host would otherwise go into links and redirects"
        problems.append(Error("GATEWAY_ALLOWED_HOSTS allows any name", hint=hint, id="gateway.E021"))
    return problems


@register(Tags.security, deploy=True)
def trusted_proxies(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """Without them every request of a proxy seems to come unencrypted from the proxy's own address."""
    if not settings.IS_PRODUCTION:
        return []
    if settings.GATEWAY_TRUSTED_PROXIES:
        return []
    hint = (
        "set GATEWAY_TRUSTED_PROXIES to the addresses from which the proxy connects, as 127.0.0.1 or 10.0.0.0/28; "
        "where the gateway ends TLS itself (--ssl-certfile), to 127.0.0.1"
    )
    return [Error("GATEWAY_TRUSTED_PROXIES is not set", hint=hint, id="gateway.E022")]


@register(Tags.security, deploy=True)
def sender(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    if not settings.IS_PRODUCTION:
        return []
    name, _at, host = parseaddr(settings.DEFAULT_FROM_EMAIL)[1].rpartition("@")
    if name and not _is_loopback(host):
        return []
    hint = "set GATEWAY_EMAIL_FROM='Trading gateway <gateway@your.domain>': mail servers refuse others"
    return [Warning(f"mails are sent as {settings.DEFAULT_FROM_EMAIL}", hint=hint, id="gateway.W014")]


@register(Tags.security, deploy=True)
def database(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """Of the database itself: there, of this version, and with somebody who can sign in."""
    if not settings.IS_PRODUCTION or settings.DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
        return []
    return list(_of_database())


def _of_database() -> Iterator[CheckMessage]:
    # A connection of its own: the pool of requests would go on trying for as long as a page may wait.
    probe = connections["default"].copy()
    probe.settings_dict["OPTIONS"] = {
        name: value for name, value in probe.settings_dict["OPTIONS"].items() if name != "pool"
    } | {"connect_timeout": _CONNECT_TIMEOUT}
    with closing(probe):
        try:
            executor = MigrationExecutor(probe)
        except DatabaseError as error:
            reason = (str(error).strip().splitlines() or ["no reason given"])[0]
            hint = "see DATABASE_URL; whether there is an operator can only be seen in the database"
            yield Error(f"the database cannot be read: {reason}", hint=hint, id="gateway.E023")
            return
        waiting = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if waiting:
        hint = "run 'python manage.py migrate'"
        yield Error(f"{len(waiting)} migrations are not applied", hint=hint, id="gateway.E024")
    elif not has_operator():
        hint = "run 'python manage.py createsuperuser': the first operator, who invites everybody else"
        yield Error("nobody can sign in to the console as an operator", hint=hint, id="gateway.E025")


def _host_of(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    """Also of an empty name, which is no host that others could reach."""
    if not host or host in _LOOPBACK_NAMES or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified
