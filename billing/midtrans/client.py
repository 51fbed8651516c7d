"""The only way from here to Midtrans. Room: billing (midtrans).

Around ``midtransclient``, which has no timeouts, follows redirects, shares headers between clients and shows the server
key in its reprs and errors. Nothing of it gets out: calls end in an ``Outcome``, and raise ValueError only for requests
that are a mistake of ours. They block; use them in a worker or a thread, never on an event loop.
"""

import uuid
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import midtransclient
import requests
import structlog
from django.conf import settings
from midtransclient.error_midtrans import JSONDecodeError, MidtransAPIError
from urllib3.exceptions import NewConnectionError

from billing.midtrans import bodies
from billing.midtrans.bodies import Customer, Item, PageOrder
from billing.midtrans.outcomes import Done, Doubt, Outcome, Unknown, refusal_of
from billing.midtrans.payload import (
    AccountStatus,
    PayloadError,
    TransactionStatus,
    parse_account,
    parse_transaction,
)

log = structlog.get_logger(__name__)
T = TypeVar("T")


class PaymentPage:
    """Where the customer pays. The token opens the page, so it stays out of the repr."""

    __slots__ = ("token", "url")

    def __init__(self, token: str, url: str) -> None:
        self.token = token
        self.url = url


class _Session(requests.Session):
    """Every wait has a bound, and no request with our key is carried on to another address."""

    def __init__(self, connect_timeout: float, read_timeout: float) -> None:
        super().__init__()
        self._timeouts = (connect_timeout, read_timeout)

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        kwargs["timeout"] = self._timeouts
        kwargs["allow_redirects"] = False
        return super().request(*args, **kwargs)


class MidtransClient:
    """For one set of calls in one thread; a context manager that closes its connections.

    ``base_url`` is that of the Core API, without a slash at its end. Timeouts are seconds: to connect, and between two
    pieces of an answer.
    """

    def __init__(
        self, *, server_key: str, base_url: str, connect_timeout: float = 3.0, read_timeout: float = 10.0
    ) -> None:
        if not server_key.strip():
            raise ValueError("MIDTRANS_SERVER_KEY is empty: set it")
        self._server_key = server_key
        self._base_url = base_url.rstrip("/")
        self._session = _Session(connect_timeout, read_timeout)

    @classmethod
    def from_settings(cls) -> "MidtransClient":
        return cls(
            server_key=settings.MIDTRANS_SERVER_KEY,
            base_url=settings.MIDTRANS_BASE_URL,
            connect_timeout=settings.MIDTRANS_CONNECT_TIMEOUT,
            read_timeout=settings.MIDTRANS_READ_TIMEOUT,
        )

    def __repr__(self) -> str:
        return f"MidtransClient({self._base_url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._session.close()

    # --- Payments -----------------------------------------------------------------------------------------------------

    def create_page(self, order: PageOrder) -> Outcome[PaymentPage]:
        """A Snap page. The same order id again gives a new page and ends the old one, until a method was chosen."""
        body = order.body()
        return self._call("create_page", order.order_id, lambda: self._snap().create_transaction(body), _page)

    def charge_card(
        self,
        *,
        order_id: str,
        amount: int,
        saved_token: str,
        idempotency_key: str,
        items: tuple[Item, ...] = (),
        customer: Customer | None = None,
    ) -> Outcome[TransactionStatus]:
        """Charges a saved card without its owner. Each try has an order id of its own."""
        body = bodies.card_charge(order_id, amount, saved_token, items, customer)
        return self._charge(order_id, body, idempotency_key)

    def charge_gopay(
        self,
        *,
        order_id: str,
        amount: int,
        account_id: str,
        wallet_token: str,
        idempotency_key: str,
        items: tuple[Item, ...] = (),
        customer: Customer | None = None,
    ) -> Outcome[TransactionStatus]:
        """Charges a linked GoPay account. ``pending``: the customer has to confirm, see ``actions`` of the value."""
        body = bodies.gopay_charge(order_id, amount, account_id, wallet_token, items, customer)
        return self._charge(order_id, body, idempotency_key)

    def status(self, order_id: str) -> Outcome[TransactionStatus]:
        """The truth about an order or a transaction id. ``Refused(MISSING)``: nothing was started."""
        return self._transaction("status", order_id, lambda calls: calls.status(order_id))

    def cancel(self, order_id: str) -> Outcome[TransactionStatus]:
        """Before settlement only; later it is a refund."""
        return self._transaction("cancel", order_id, lambda calls: calls.cancel(order_id))

    def expire(self, order_id: str) -> Outcome[TransactionStatus]:
        """Ends what is pending."""
        return self._transaction("expire", order_id, lambda calls: calls.expire(order_id))

    def approve(self, order_id: str) -> Outcome[TransactionStatus]:
        """Accepts a challenged card payment."""
        return self._transaction("approve", order_id, lambda calls: calls.approve(order_id))

    def deny(self, order_id: str) -> Outcome[TransactionStatus]:
        """Refuses a challenged card payment."""
        return self._transaction("deny", order_id, lambda calls: calls.deny(order_id))

    def refund(self, order_id: str, *, refund_key: str, amount: int, reason: str) -> Outcome[TransactionStatus]:
        """Cards. Bank transfers cannot be refunded through Midtrans. What is refunded in all, ``status`` tells."""
        body = bodies.refund_body(refund_key, amount, reason)
        return self._transaction("refund", order_id, lambda calls: calls.refund(order_id, body))

    def refund_direct(self, order_id: str, *, refund_key: str, amount: int, reason: str) -> Outcome[TransactionStatus]:
        """GoPay and QRIS, and cards of banks that take it at once."""
        body = bodies.refund_body(refund_key, amount, reason)
        return self._transaction("refund_direct", order_id, lambda calls: calls.refundDirect(order_id, body))

    # --- Linked GoPay accounts ----------------------------------------------------------------------------------------

    def link_gopay(self, *, phone_number: str, redirect_url: str, country_code: str = "62") -> Outcome[AccountStatus]:
        """PENDING with the URL where the customer agrees."""
        partner = {"phone_number": phone_number, "country_code": country_code, "redirect_url": redirect_url}
        body = {"payment_type": "gopay", "gopay_partner": partner}
        return self._call("link_gopay", "", lambda: self._core().link_payment_account(body), parse_account)

    def gopay_account(self, account_id: str) -> Outcome[AccountStatus]:
        """With the token that charges it once it is ENABLED."""
        bodies.check_order_id(account_id)
        return self._call(
            "gopay_account", account_id, lambda: self._core().get_payment_account(account_id), parse_account
        )

    def unlink_gopay(self, account_id: str) -> Outcome[AccountStatus]:
        bodies.check_order_id(account_id)
        return self._call(
            "unlink_gopay", account_id, lambda: self._core().unlink_payment_account(account_id), parse_account
        )

    # --- How --------------------------------------------------------------------------------------------------------

    def _charge(self, order_id: str, body: dict[str, Any], idempotency_key: str) -> Outcome[TransactionStatus]:
        headers = bodies.idempotency_header(idempotency_key)
        return self._call("charge", order_id, lambda: self._core(headers).charge(body), parse_transaction, order_id)

    def _transaction(self, name: str, order_id: str, act: Callable[[Any], Any]) -> Outcome[TransactionStatus]:
        bodies.check_order_id(order_id)
        return self._call(name, order_id, lambda: act(self._core().transactions), parse_transaction, order_id)

    def _core(self, headers: Mapping[str, str] | None = None) -> Any:
        return self._prepared(midtransclient.CoreApi, headers or {})

    def _snap(self) -> Any:
        return self._prepared(midtransclient.Snap, {})

    def _prepared(self, kind: Any, headers: Mapping[str, str]) -> Any:
        """A client of the library for one call: its headers are not to be shared with the next."""
        client = kind(server_key=self._server_key, custom_headers=dict(headers), proxies={})
        client.api_config.CORE_SANDBOX_BASE_URL = self._base_url
        client.api_config.SNAP_SANDBOX_BASE_URL = page_url_of(self._base_url)
        client.http_client.http_client = self._session
        return client

    def _call(
        self,
        name: str,
        order_id: str,
        act: Callable[[], Any],
        parse: Callable[[Mapping[str, Any]], T],
        expected_id: str = "",
    ) -> Outcome[T]:
        outcome = _outcome(act, parse)
        if expected_id and isinstance(outcome, Done) and not _is_about(outcome.value, expected_id):
            # An answer about another order must not pay for this one.
            outcome = Unknown(Doubt.UNREADABLE)
        if not isinstance(outcome, Done):
            detail = outcome.doubt.value if isinstance(outcome, Unknown) else outcome.reason.value
            log.warning("midtrans_call", call=name, order_id=order_id, outcome=detail)
        return outcome


def page_url_of(base_url: str) -> str:
    """Snap's address for a Core address: Midtrans has a host of its own for it, a stand-in serves both."""
    parts = urlsplit(base_url)
    host = parts.netloc
    if host.startswith("api.") and host.endswith("midtrans.com"):
        host = "app." + host.removeprefix("api.")
    return f"{parts.scheme}://{host}{parts.path.rstrip('/')}/snap/v1"


def new_idempotency_key() -> str:
    return str(uuid.uuid4())


def _outcome(act: Callable[[], Any], parse: Callable[[Mapping[str, Any]], T]) -> Outcome[T]:
    try:
        answer = act()
    except MidtransAPIError as error:
        return _error_outcome(error)
    except requests.ConnectTimeout:
        return Unknown(Doubt.UNREACHABLE)
    except requests.Timeout:
        return Unknown(Doubt.TIMEOUT)
    except requests.ConnectionError as error:
        cause = getattr(error.args[0], "reason", None) if error.args else None
        return Unknown(Doubt.UNREACHABLE if isinstance(cause, NewConnectionError) else Doubt.BROKEN)
    except requests.exceptions.JSONDecodeError:
        return Unknown(Doubt.UNREADABLE)
    except requests.RequestException:
        return Unknown(Doubt.BROKEN)
    except (JSONDecodeError, ValueError, TypeError, AttributeError, RecursionError):
        # What the library makes of answers that are no JSON object, have a code that is no number, or nest too deep.
        return Unknown(Doubt.UNREADABLE)
    if not isinstance(answer, Mapping):
        return Unknown(Doubt.UNREADABLE)
    try:
        return Done(parse(answer))
    except PayloadError as error:
        if str(answer.get("status_code")) == "202" and "transaction_status" not in answer:
            return Unknown(Doubt.IN_PROGRESS)
        log.error("midtrans_answer_unreadable", field=error.field, problem=error.problem)
        return Unknown(Doubt.UNREADABLE)


def _error_outcome(error: MidtransAPIError) -> Outcome[Any]:
    answer = error.api_response_dict if isinstance(error.api_response_dict, Mapping) else {}
    if error.http_status_code >= 500:
        return Unknown(Doubt.BROKEN)
    code = str(answer.get("status_code") or error.http_status_code)
    messages = answer.get("error_messages")
    message = messages[0] if isinstance(messages, list) and messages else answer.get("status_message", "")
    return refusal_of(code, str(message))


def _page(answer: Mapping[str, Any]) -> PaymentPage:
    token, url = answer.get("token"), answer.get("redirect_url")
    if not isinstance(token, str) or not token:
        raise PayloadError("token", "is missing")
    if not isinstance(url, str) or urlsplit(url).scheme not in ("http", "https"):
        raise PayloadError("redirect_url", "is not an address")
    return PaymentPage(token, url)


def _is_about(value: object, expected_id: str) -> bool:
    return not isinstance(value, TransactionStatus) or expected_id in (value.order_id, value.transaction_id)
