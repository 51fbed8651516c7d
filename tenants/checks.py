"""System checks of the identity settings. Room: tenants."""

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.exceptions import ImproperlyConfigured

from tenants.tokens import Keyring


@register(Tags.security)
def jwt_keys(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """The keys must be there and strong before a first token is asked for."""
    try:
        Keyring.from_setting(settings.GATEWAY_JWT_KEYS)
    except ImproperlyConfigured as error:
        return [Error(str(error), hint="see GATEWAY_JWT_KEYS in .env.example", id="tenants.E001")]
    return []


@register(Tags.security)
def token_lifetime(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    if settings.GATEWAY_TOKEN_TTL > settings.GATEWAY_TOKEN_TTL_LIMIT:
        hint = "tokens are short-lived; terminals get new ones with their API key"
        return [Error("GATEWAY_TOKEN_TTL is above GATEWAY_TOKEN_TTL_LIMIT", hint=hint, id="tenants.E002")]
    return []
