"""System checks: what would be wrong in production, each with an id and what to do. Room: gateway_project."""

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register

from streaming.core.routing import build_routes
from streaming.wire.forwarded import EVERYBODY, networks

# Bytes that fit with their envelope into the 1 MiB that brokers take by default.
_KAFKA_MESSAGE_SIZE = 960 * 1024


@register(Tags.security)
def unknown_settings(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """A misspelt setting is silently its default, which is worse than an error."""
    return [
        Warning(f"{name} is not a setting", hint=".env.example lists all settings", id="gateway.W001")
        for name in settings.UNKNOWN_SETTINGS
    ]


@register(Tags.compatibility)
def routes(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    try:
        build_routes(settings.GATEWAY_ROUTES)
    except ValueError as error:
        return [Error(f"GATEWAY_ROUTES: {error}", id="gateway.E001")]
    return []


@register(Tags.security)
def trusted_proxies(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """One that is misspelt is never trusted: everybody would seem to come from the proxy's address."""
    try:
        found = networks(settings.GATEWAY_TRUSTED_PROXIES)
    except ValueError as error:
        hint = "list addresses and networks, as in 10.0.0.5,10.1.0.0/16,fd00::/8"
        return [Error(f"GATEWAY_TRUSTED_PROXIES: {error}", hint=hint, id="gateway.E005")]
    if settings.IS_PRODUCTION and set(EVERYBODY) & set(found):
        hint = "list the proxies: whoever connects chooses its address, and says that it came over TLS"
        return [Warning("GATEWAY_TRUSTED_PROXIES trusts everybody", hint=hint, id="gateway.W013")]
    return []


@register(Tags.compatibility)
def intervals(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    problems: list[CheckMessage] = []
    if settings.GATEWAY_DRAIN_SPREAD > settings.GATEWAY_DRAIN_TIMEOUT:
        hint = "the closes are spread over a part of the drain"
        problems.append(
            Error("GATEWAY_DRAIN_SPREAD is longer than GATEWAY_DRAIN_TIMEOUT", hint=hint, id="gateway.E002")
        )
    if settings.GATEWAY_BACKEND_TIMEOUT > 60:
        hint = "terminals would wait that long for an answer; librdkafka expires single messages at 120 s"
        problems.append(Error("GATEWAY_BACKEND_TIMEOUT is above 60 s", hint=hint, id="gateway.E003"))
    limit = settings.GATEWAY_MESSAGE_SIZE_LIMIT
    if limit > _KAFKA_MESSAGE_SIZE and "message.max.bytes" not in settings.GATEWAY_KAFKA_OPTIONS:
        hint = "raise message.max.bytes in GATEWAY_KAFKA_OPTIONS and at the brokers, whose default is 1 MiB"
        problems.append(
            Error(f"GATEWAY_MESSAGE_SIZE_LIMIT is above {_KAFKA_MESSAGE_SIZE}", hint=hint, id="gateway.E004")
        )
    return problems


@register(Tags.security, deploy=True)
def production(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """What a development machine may do without and production may not."""
    if not settings.IS_PRODUCTION:
        return [
            Error(
                "GATEWAY_ENVIRONMENT is development",
                hint="set GATEWAY_ENVIRONMENT=production: generated keys and embedded services are for one machine",
                id="gateway.E010",
            )
        ]
    required = {
        "gateway.E011": ("GATEWAY_SECRET_KEY", settings.SECRET_KEY != "unset"),  # noqa: S105 (the marker of an unset key)
        "gateway.E012": ("GATEWAY_KAFKA_BOOTSTRAP_SERVERS", bool(settings.GATEWAY_KAFKA_BOOTSTRAP_SERVERS)),
        "gateway.E013": ("REDIS_URL", bool(settings.REDIS_URL)),
        "gateway.E014": ("GATEWAY_METRICS_TOKEN", bool(settings.GATEWAY_METRICS_TOKEN)),
        "gateway.E015": ("GATEWAY_ALLOWED_HOSTS", bool(settings.ALLOWED_HOSTS)),
    }
    problems: list[CheckMessage] = [
        Error(f"{name} is not set", hint=f"set {name}, see .env.example", id=identifier)
        for identifier, (name, is_set) in required.items()
        if not is_set
    ]
    if settings.DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
        hint = "set DATABASE_URL to a PostgreSQL database: several processes and hosts share it"
        problems.append(Error("production on SQLite", hint=hint, id="gateway.E016"))
    if settings.GATEWAY_BENCHMARK:
        problems.append(Error("GATEWAY_BENCHMARK lifts the limits", hint="unset it", id="gateway.E017"))
    if settings.GATEWAY_TWO_FACTOR != "required":
        hint = "set GATEWAY_TWO_FACTOR=required: one stolen password is otherwise enough to enter the admin"
        problems.append(Warning("GATEWAY_TWO_FACTOR is optional", hint=hint, id="gateway.W011"))
    if settings.EMAIL_BACKEND == "django.core.mail.backends.console.EmailBackend":
        hint = "set GATEWAY_EMAIL_URL to a mail server: invitations and password resets reach nobody"
        problems.append(Warning("e-mail goes to the console", hint=hint, id="gateway.W012"))
    if settings.GATEWAY_TOPIC_REPLICATION < 2:
        hint = "one broker's disk is then all that holds an acknowledged message"
        problems.append(Warning("GATEWAY_TOPIC_REPLICATION is 1", hint=hint, id="gateway.W010"))
    return problems
