"""Whether the terminal of a new API key has come online, in words for the page that shows the key. Room: tenants."""

from dataclasses import dataclass
from typing import Literal

from django.utils import timezone
from django.utils.translation import gettext as _

from tenants.access import Actor, visible
from tenants.models import ApiKey, MT5Account


@dataclass(frozen=True, slots=True)
class Seen:
    """``state``: waiting (the key was not used), token (used, nothing came online yet) or online."""

    state: Literal["waiting", "token", "online"]
    text: str


def seen(key: ApiKey) -> Seen:
    """Accounts count that were heard from since the key was made, and only once the key was used."""
    if key.last_used_at is None:
        return Seen("waiting", _("Waiting for the terminal: nobody has used this key yet."))
    online = visible(_READER, MT5Account).filter(owner=key.user_id, is_online=True)
    if key.account_id is not None:
        online = online.filter(pk=key.account_id)
    row = online.filter(last_seen_at__gte=key.created_at).order_by("-last_seen_at").first()
    if row is None and (before := online.first()) is not None:
        # A second terminal of the account is no change that anybody writes.
        text = _(
            "The terminal has fetched a token with this key. MT5 account %(account)s was online before: the list of "
            "live connections has a line for each of its terminals."
        )
        return Seen("token", text % {"account": before.login})
    if row is None:
        text = _("The terminal has fetched a token with this key and is not connected yet: look at its log.")
        return Seen("token", text)
    moment = timezone.localtime(row.last_seen_at)
    text = _("Seen: MT5 account %(account)s is online, last heard from at %(time)s.")
    return Seen("online", text % {"account": row.login, "time": f"{moment:%H:%M:%S}"})


# The key was found for whoever asks; what is said is about that key alone.
_READER = Actor.system("console")
