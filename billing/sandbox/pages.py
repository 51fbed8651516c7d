"""The pages on which a person plays the customer and the bank. Room: billing (sandbox)."""

from collections.abc import Mapping
from urllib.parse import urlencode, urlsplit

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.loader import render_to_string

from billing.money import rupiah
from billing.sandbox.methods import ApiError
from billing.sandbox.state import Page, Sandbox
from billing.sandbox.transaction import Transaction

METHODS = {"card": "Card", "bank_transfer": "Bank transfer (BCA virtual account)", "gopay": "GoPay", "qris": "QRIS"}
_FIRST_ACTIONS = {
    "pay": "Pay",
    "deny": "Fail",
    "challenge": "Challenge",
    "expire": "Expire",
    "refund": "Pay, then refund",
    "chargeback": "Pay, then charge back",
    "reverse": "Pay, then reverse",
    "wait": "Leave pending",
}
LABELS = {
    "pay": "Pay",
    "deny": "Refuse",
    "failure": "Fail technically",
    "challenge": "Challenge as possible fraud",
    "approve": "Accept the challenge",
    "settle": "Settle",
    "expire": "Expire",
    "cancel": "Cancel",
    "refund": "Refund all",
    "partial_refund": "Refund a part",
    "chargeback": "Charge back",
    "partial_chargeback": "Charge back a part",
    "reverse": "Reverse the settlement",
}
# What goes before an act that needs money to have come in.
_AFTER_SETTLEMENT = frozenset({"refund", "chargeback", "reverse"})


async def home(_request: HttpRequest, sandbox: Sandbox) -> HttpResponse:
    rows = [
        {"order_id": page.order_id, "amount": rupiah(page.amount), "state": "open", "url": sandbox.page_url(page)}
        for page in sandbox.pages.values()
        if not page.transaction_id
    ]
    rows += [
        {
            "order_id": transaction.order_id,
            "amount": rupiah(transaction.amount),
            "state": transaction.state,
            "url": f"/sandbox/pay/{transaction_id}",
        }
        for transaction_id, transaction in reversed(sandbox.transactions.items())
    ]
    return _html("home", {"rows": rows})


async def snap_page(request: HttpRequest, sandbox: Sandbox, token: str) -> HttpResponse:
    """GET shows what can be done; POST does ``action`` by ``method``, in one click from nothing to its end."""
    page = sandbox.page(token)
    if request.method == "POST":
        if page.transaction_id:
            _act(sandbox, sandbox.transactions[page.transaction_id], request.POST.get("action", ""))
        else:
            _begin(sandbox, page, request.POST.get("method", ""), request.POST.get("action", ""))
        return HttpResponseRedirect(request.path)
    if page.transaction_id:
        return _transaction_page(sandbox.transactions[page.transaction_id], page.finish_url)
    methods = [
        {"code": code, "name": name, "actions": [_button(code, action) for action in _FIRST_ACTIONS]}
        for code, name in METHODS.items()
    ]
    context = {"order_id": page.order_id, "amount": rupiah(page.amount), "methods": methods, "state": ""}
    return _html("pay", context)


async def pay_page(request: HttpRequest, sandbox: Sandbox, transaction_id: str) -> HttpResponse:
    """The same for a transaction that has begun, as by a charge."""
    transaction = sandbox.find(transaction_id)
    if request.method == "POST":
        _act(sandbox, transaction, request.POST.get("action", ""))
        return HttpResponseRedirect(request.path)
    return _transaction_page(transaction, "")


async def link_page(request: HttpRequest, sandbox: Sandbox, account_id: str) -> HttpResponse:
    """Where the owner of a wallet agrees to be charged."""
    account = sandbox.account(account_id)
    if request.method == "POST":
        sandbox.change_account(account, "ENABLED" if request.POST.get("action") == "enable" else "EXPIRED")
        return HttpResponseRedirect(request.path)
    return _html("link", {"status": account.status})


def play(sandbox: Sandbox, transaction: Transaction, action: str) -> None:
    """Does one act, after those that have to come before it. Raises ApiError."""
    if action not in LABELS:
        raise ApiError("400", f"action is one of {', '.join(LABELS)}")
    if action in _AFTER_SETTLEMENT and transaction.state == "pending":
        sandbox.act(transaction, "pay")
    if action in _AFTER_SETTLEMENT and transaction.state == "capture":
        sandbox.act(transaction, "settle")
    sandbox.act(transaction, action)


def _begin(sandbox: Sandbox, page: Page, method: str, action: str) -> None:
    if method not in METHODS or action not in _FIRST_ACTIONS or not _button(method, action)["enabled"]:
        raise ApiError("400", "choose one of the buttons")
    transaction = sandbox.choose(page, method)
    if action != "wait":
        play(sandbox, transaction, action)


def _act(sandbox: Sandbox, transaction: Transaction, action: str) -> None:
    # A second click on a page that has moved on changes nothing.
    if action in transaction.possible():
        sandbox.act(transaction, action)


def _button(method: str, action: str) -> dict[str, object]:
    # Only cards are looked at for fraud.
    return {"code": action, "name": _FIRST_ACTIONS[action], "enabled": action != "challenge" or method == "card"}


def _transaction_page(transaction: Transaction, finish_url: str) -> HttpResponse:
    back = ""
    if urlsplit(finish_url).scheme in ("http", "https"):
        query = {"order_id": transaction.order_id, "transaction_status": transaction.status}
        back = f"{finish_url}{'&' if '?' in finish_url else '?'}{urlencode(query)}"
    context = {
        "order_id": transaction.order_id,
        "amount": rupiah(transaction.amount),
        "state": transaction.state,
        "payment_type": transaction.payment_type,
        "history": transaction.history,
        "actions": [{"code": action, "name": LABELS[action]} for action in transaction.possible()],
        "back": back,
    }
    return _html("pay", context)


def _html(name: str, context: Mapping[str, object]) -> HttpResponse:
    response = HttpResponse(render_to_string(f"billing/sandbox/{name}.html", dict(context)))
    # What stands on these pages came from requests.
    response["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'"
    response["Cache-Control"] = "no-store"
    return response
