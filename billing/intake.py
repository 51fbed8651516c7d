"""Messages at the endpoints: who sent them, and what is kept of them. Room: billing.

Kept is what can be shown: no signature, no token. Of what nobody with a key has sent, only a few fields are kept, and
only so many a minute from one address: nobody fills the database.
"""

import hashlib
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from django.conf import settings

from billing import clock
from billing.midtrans.payload import masked
from billing.models import WebhookReceipt
from billing.receipts import FIRST_TRY, note_verdicts

_SHOWN_OF_STRANGERS = ("order_id", "transaction_status", "status_code", "gross_amount", "type")
_TEXT_LIMIT = 64
Verdict = WebhookReceipt.Verdict


class MinuteCounter:
    """Counts by name and minute, for a bounded number of names; threads may share it."""

    def __init__(self, names_limit: int = 10_000) -> None:
        self._names_limit = names_limit
        self._counts: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, name: str) -> int:
        """How many there were in this minute, this one included."""
        minute = int(time.monotonic() // 60)
        with self._lock:
            then, count = self._counts.pop(name, (minute, 0))
            count = count + 1 if then == minute else 1
            self._counts[name] = (minute, count)
            while len(self._counts) > self._names_limit:
                self._counts.popitem(last=False)
        return count


_without_effect = MinuteCounter()


def accept(
    source: str, body: bytes, data: Mapping[str, Any], *, address: str, order_id: str = "", event_key: str = ""
) -> WebhookReceipt:
    """Keeps a genuine message, which waits from now on."""
    return WebhookReceipt.objects.create(
        source=source,
        address=address[:64],
        body_sha256=hashlib.sha256(body).hexdigest(),
        body=storable(masked(data)),
        order_id=order_id,
        event_key=event_key,
        verdict=Verdict.WAITING,
        next_try_at=clock.now() + FIRST_TRY,
    )


def keep_without_effect(
    source: str,
    body: bytes,
    data: Mapping[str, Any],
    verdict: str,
    reason: str,
    *,
    address: str,
    order_id: str = "",
    event_key: str = "",
) -> WebhookReceipt | None:
    """Keeps a message that is refused, repeated or of no use, with its line in the books; None above the limit."""
    if _without_effect.add(address) > settings.GATEWAY_REFUSED_RECEIPT_LIMIT:
        return None
    shown = {name: data[name] for name in _SHOWN_OF_STRANGERS if isinstance(data.get(name), str)}
    receipt = WebhookReceipt.objects.create(
        source=source,
        address=address[:64],
        body_sha256=hashlib.sha256(body).hexdigest(),
        body={name: _text(value)[:_TEXT_LIMIT] for name, value in shown.items()},
        order_id=_text(order_id)[:_TEXT_LIMIT],
        event_key=event_key,
        verdict=verdict,
        reason=reason,
        processed_at=clock.now(),
    )
    note_verdicts([receipt])
    return receipt


def storable(data: Any) -> Any:
    """As any database takes it: JSON may say more than a column can hold (NUL, half of a pair, NaN)."""
    if isinstance(data, str):
        return _text(data)
    if isinstance(data, float) and not math.isfinite(data):
        return str(data)
    if isinstance(data, Mapping):
        return {_text(str(key)): storable(value) for key, value in data.items()}
    if isinstance(data, list):
        return [storable(item) for item in data]
    return data


def _text(text: str) -> str:
    return text.replace("\0", "?").encode("utf-8", "replace").decode()
