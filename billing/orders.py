"""Order ids at Midtrans: ours, of one length, told apart from anybody else's. Room: billing.

One length, because Midtrans' signature joins the order id and the amount without anything between them.
"""

import re
import secrets

_FORM = re.compile(r"gw-(?P<invoice>[0-9]{10})-[0-9a-f]{12}")
_INVOICE_LIMIT = 10**10


def new_order_id(invoice_id: int) -> str:
    """26 characters: "gw-0000000042-9f86d081884c". A new one each time."""
    if not 0 < invoice_id < _INVOICE_LIMIT:
        raise ValueError("an invoice id has 1 to 10 digits")
    return f"gw-{invoice_id:010}-{secrets.token_hex(6)}"


def invoice_id_of(order_id: str) -> int | None:
    """None: not one of ours."""
    match = _FORM.fullmatch(order_id)
    return int(match["invoice"]) if match else None
