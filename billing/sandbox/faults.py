"""What goes wrong on demand. Room: billing (sandbox)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

# Calls of the API by name; "*" is any of them.
API_CALLS = ("snap", "charge", "status", "cancel", "expire", "refund", "approve", "deny", "account", "token", "*")
API_EFFECTS = {
    "error": "answers `status` (an HTTP code from 500)",
    "timeout": "answers after `seconds`",
    "broken": "answers something that is no JSON",
    "wrong_amount": "says `amount` in place of the true one",
}
NOTIFICATION_EFFECTS = {
    "lose": "is never sent",
    "duplicate": "is sent `copies` times more",
    "delay": "is sent after `seconds`",
    "hold": "is sent after the next one of the same order: wrong order",
    "wrong_amount": "says `amount`, and is signed for it",
    "forge": "carries a signature that nobody with the key made",
    "tamper": "says `transaction_status` in place of the true one, under the true signature",
}
_WITHOUT_AMOUNT = frozenset({"snap", "account", "token", "*"})
_FIELDS = frozenset(
    {"call", "effect", "order_id", "count", "done", "status", "seconds", "copies", "amount", "transaction_status"}
)


@dataclass(slots=True)
class Fault:
    """Applies ``count`` times, to one order or (order_id "") to whichever comes."""

    # A name of API_CALLS, or "notification".
    call: str
    effect: str
    order_id: str = ""
    count: int = 1
    # Of an API call that fails: whether it was carried out all the same.
    done: bool = False
    status: int = 503
    seconds: float = 1.0
    copies: int = 1
    amount: int = 1
    transaction_status: str = "settlement"


class Faults:
    def __init__(self) -> None:
        self._rules: list[Fault] = []

    def add(self, data: Mapping[str, Any]) -> Fault:
        """Raises ValueError that names what is wrong with ``data``."""
        unknown = sorted(set(data) - _FIELDS)
        if unknown:
            raise ValueError(f"unknown fields: {', '.join(unknown)}; known are {', '.join(sorted(_FIELDS))}")
        call, effect = data.get("call"), data.get("effect")
        effects = NOTIFICATION_EFFECTS if call == "notification" else API_EFFECTS
        if call != "notification" and call not in API_CALLS:
            raise ValueError(f"call is notification or one of {', '.join(API_CALLS)}")
        if effect not in effects:
            raise ValueError(f"effect is one of {', '.join(effects)}")
        fault = Fault(**data)
        for name, value in asdict(fault).items():
            wanted = type(getattr(Fault("", ""), name))
            if not isinstance(value, (int, float) if wanted is float else wanted) or (
                wanted is not bool and isinstance(value, bool)
            ):
                raise ValueError(f"{name} is to be a {wanted.__name__}")
        if not 1 <= fault.count <= 1_000 or not 0 <= fault.seconds <= 60 or not 1 <= fault.copies <= 20:
            raise ValueError("at most: count 1000, seconds 60, copies 20")
        if effect == "wrong_amount" and call in _WITHOUT_AMOUNT:
            raise ValueError(f"{call} answers no amount: name the call")
        if effect == "error" and not 500 <= fault.status <= 599:
            raise ValueError("status is 500 to 599")
        self._rules.append(fault)
        return fault

    def take(self, call: str, order_id: str) -> Fault | None:
        """The first fault that applies, used up by one."""
        for fault in self._rules:
            is_call = fault.call == call or (fault.call == "*" and call != "notification")
            if is_call and fault.order_id in ("", order_id):
                fault.count -= 1
                if fault.count == 0:
                    self._rules.remove(fault)
                return fault
        return None

    def clear(self) -> None:
        self._rules.clear()

    def listed(self) -> list[dict[str, Any]]:
        return [asdict(fault) for fault in self._rules]
