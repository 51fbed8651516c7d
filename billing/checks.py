"""System checks of the payment settings. Room: billing."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register

_HINT = "see MIDTRANS_SERVER_KEY and MIDTRANS_BASE_URL in .env.example"


@register(Tags.security, deploy=True)
def midtrans(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """What takes money may not be guessed."""
    problems: list[CheckMessage] = []
    if not settings.MIDTRANS_SERVER_KEY:
        problems.append(Error("MIDTRANS_SERVER_KEY is not set", hint=_HINT, id="billing.E001"))
    if not all(key.strip() for key in settings.MIDTRANS_SIGNING_KEYS):
        hint = "anybody could sign with an empty key: set MIDTRANS_SERVER_KEY or MIDTRANS_SIGNING_KEYS"
        problems.append(Error("notifications would be verified with an empty key", hint=hint, id="billing.E002"))
    address = urlsplit(settings.MIDTRANS_BASE_URL)
    if address.scheme != "https":
        hint = "the server key would travel in the clear"
        problems.append(Error("MIDTRANS_BASE_URL is not https", hint=hint, id="billing.E003"))
    if ".sandbox." in address.netloc or settings.MIDTRANS_SERVER_KEY.startswith("SB-"):
        hint = "no money moves there: use the production key and address"
        problems.append(Warning("Midtrans is used in its sandbox", hint=hint, id="billing.W001"))
    return problems


@register(Tags.security, deploy=True)
def seller(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """An invoice without its seller is none."""
    if settings.GATEWAY_SELLER_NAME:
        return []
    hint = "see GATEWAY_SELLER_NAME in .env.example; the address and the tax id belong to it"
    return [Error("GATEWAY_SELLER_NAME is not set: invoices would not name who sells", hint=hint, id="billing.E004")]
