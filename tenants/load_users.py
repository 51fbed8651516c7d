"""Identities for the simulator when it is given none. Room: tenants."""

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from tenants.seeds import load_users, tokens_of


def load_tokens(count: int, *, ttl: float | None = None) -> list[str]:
    """Tokens of ``count`` load users, made where they are missing; raises ImproperlyConfigured in production."""
    if settings.IS_PRODUCTION:
        raise ImproperlyConfigured("load users are for development machines: give the simulator a --token-file")
    return tokens_of(load_users(count), settings.GATEWAY_TOKEN_TTL if ttl is None else ttl)
