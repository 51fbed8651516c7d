"""Midtrans' endpoints as documented. Room: billing (sandbox).

Errors of the Core API come as Midtrans sends them: HTTP 200 with the code in the body, except 401. Those of Snap are
HTTP codes with ``error_messages``.
"""

import asyncio
import base64
import binascii
import hmac
import json
import uuid
from collections.abc import Callable, Coroutine
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse

from billing.sandbox.faults import Fault
from billing.sandbox.methods import ApiError
from billing.sandbox.state import Call, Remembered, Sandbox
from billing.sandbox.transaction import Transaction, now, written

Act = Callable[[Sandbox, dict[str, Any]], tuple[int, dict[str, Any]]]
View = Callable[..., Coroutine[Any, Any, HttpResponse]]
_BUSY = (202, {"status_code": "202", "status_message": "The first request with this key is being processed"})


async def snap(request: HttpRequest, sandbox: Sandbox) -> HttpResponse:
    def act(sandbox: Sandbox, data: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        page = sandbox.open_page(data, _urls(request, sandbox))
        return 201, {"token": page.token, "redirect_url": sandbox.page_url(page)}

    return await _answer(request, sandbox, "snap", "", act, is_snap=True)


async def charge(request: HttpRequest, sandbox: Sandbox) -> HttpResponse:
    def act(sandbox: Sandbox, data: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        transaction = sandbox.charge(data, _urls(request, sandbox))
        body = _body(sandbox, transaction, "Success, transaction is found")
        if transaction.status == "pending":
            link = f"{sandbox.address}/sandbox/pay/{transaction.transaction_id}"
            names = {"gopay": ("generate-qr-code", "deeplink-redirect"), "qris": ("generate-qr-code",)}
            actions = [{"name": name, "method": "GET", "url": link} for name in names.get(transaction.payment_type, ())]
            body |= {"actions": actions} if actions else {}
        return int(body["status_code"]), body

    return await _answer(request, sandbox, "charge", "", act)


async def status(request: HttpRequest, sandbox: Sandbox, reference: str) -> HttpResponse:
    def act(sandbox: Sandbox, _data: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return 200, _body(sandbox, sandbox.find(reference), "Success, transaction is found")

    return await _answer(request, sandbox, "status", reference, act)


def _change(call: str) -> View:
    async def view(request: HttpRequest, sandbox: Sandbox, reference: str) -> HttpResponse:
        def act(sandbox: Sandbox, _data: dict[str, Any]) -> tuple[int, dict[str, Any]]:
            transaction = sandbox.find(reference)
            # A denial by the merchant is of a challenge only.
            if call == "deny" and transaction.state != "challenge":
                raise ApiError("412", "Merchant cannot modify the status of the transaction")
            sandbox.act(transaction, call)
            return 200, _body(sandbox, transaction, "Success, transaction status is changed")

        return await _answer(request, sandbox, call, reference, act)

    return view


cancel, expire, approve, deny = map(_change, ("cancel", "expire", "approve", "deny"))


async def refund(request: HttpRequest, sandbox: Sandbox, reference: str) -> HttpResponse:
    """Both /refund and /refund/online/direct."""

    def act(sandbox: Sandbox, data: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        transaction = sandbox.find(reference)
        made = sandbox.refund(transaction, data)
        body = _body(sandbox, transaction, "Success, refund request is approved")
        return 200, body | {name: made[name] for name in ("refund_chargeback_id", "refund_amount", "refund_key")}

    return await _answer(request, sandbox, "refund", reference, act)


async def card_token(request: HttpRequest, sandbox: Sandbox) -> HttpResponse:
    """GET /v2/token: for one charge, called by browsers with the client key."""

    def act(sandbox: Sandbox, _data: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        card = sandbox.save_card(request.GET.get("card_number", ""), is_single=True)
        return 200, {"status_code": "200", "token_id": card.token, "hash": uuid.uuid4().hex}

    return await _answer(request, sandbox, "token", "", act)


async def card_register(request: HttpRequest, sandbox: Sandbox) -> HttpResponse:
    """GET /v2/card/register: a saved token without a charge."""

    def act(sandbox: Sandbox, _data: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        card = sandbox.save_card(request.GET.get("card_number", ""))
        return 200, {
            "status_code": "200",
            "saved_token_id": card.token,
            "transaction_id": str(uuid.uuid4()),
            "masked_card": card.masked,
        }

    return await _answer(request, sandbox, "token", "", act)


async def link_account(request: HttpRequest, sandbox: Sandbox) -> HttpResponse:
    def act(sandbox: Sandbox, data: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        partner = data.get("gopay_partner")
        if data.get("payment_type") != "gopay" or not isinstance(partner, dict) or not partner.get("phone_number"):
            raise ApiError("400", "gopay_partner.phone_number is required")
        return 201, _account_body(sandbox, sandbox.link(enabled=False).account_id)

    return await _answer(request, sandbox, "account", "", act)


async def account(request: HttpRequest, sandbox: Sandbox, account_id: str) -> HttpResponse:
    def act(sandbox: Sandbox, _data: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return 200, _account_body(sandbox, account_id)

    return await _answer(request, sandbox, "account", account_id, act)


async def unbind(request: HttpRequest, sandbox: Sandbox, account_id: str) -> HttpResponse:
    def act(sandbox: Sandbox, _data: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        found = sandbox.account(account_id)
        if found.status != "ENABLED":
            raise ApiError("412", "Account status cannot be updated.")
        sandbox.change_account(found, "DISABLED")
        return 204, _account_body(sandbox, account_id)

    return await _answer(request, sandbox, "account", account_id, act)


async def _answer(
    request: HttpRequest, sandbox: Sandbox, name: str, reference: str, act: Act, *, is_snap: bool = False
) -> HttpResponse:
    """Key, idempotency, faults, and then the call itself."""
    key = request.headers.get("Idempotency-Key", "")
    data, problem = _data(request)
    order_id = reference or _order_id(data)
    call = Call(written(now()), str(request.method), request.path, name, order_id, key)
    sandbox.log_call(call)
    if not _is_authorized(request, sandbox, name):
        return _finish(call, _refused(ApiError("401", "Unknown Merchant server_key/id"), is_snap, http=401))
    if problem:
        return _finish(call, _refused(ApiError("400", problem), is_snap))
    if key and (known := sandbox.recall(key)) is not None:
        code, body = known.answer or _BUSY
        return _finish(call, JsonResponse(body, status=_http(code)))
    fault = sandbox.faults.take(name, order_id)
    call.fault = fault.effect if fault else ""
    if fault and fault.effect in ("error", "broken", "timeout") and not fault.done:
        return _finish(call, await _fail(fault))
    remembered = Remembered(now())
    if key:
        sandbox.remembered[key] = remembered
    try:
        code, body = _carried_out(act, sandbox, data)
    except ApiError as error:
        # Only successes are kept.
        sandbox.remembered.pop(key, None)
        return _finish(call, _refused(error, is_snap))
    if fault and fault.effect == "timeout":
        try:
            return _finish(call, await _fail(fault))
        finally:
            # Until here the first call runs, also when its caller has gone.
            remembered.answer = (code, body)
    remembered.answer = (code, body)
    if fault and fault.effect == "wrong_amount":
        transaction = sandbox.find(body["transaction_id"])
        body = transaction.body(sandbox.server_key, message="Success", expire_code="407", amount=fault.amount)
    elif fault:
        return _finish(call, await _fail(fault))
    return _finish(call, JsonResponse(body, status=_http(code)))


def _carried_out(act: Act, sandbox: Sandbox, data: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    try:
        return act(sandbox, data)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # A list where an object is documented, a text where a number is.
        raise ApiError("400", f"the request is not as documented: {type(error).__name__}") from error


async def _fail(fault: Fault) -> HttpResponse:
    if fault.effect == "timeout":
        await asyncio.sleep(fault.seconds)
        return JsonResponse({"status_code": "504", "status_message": "Too late"}, status=504)
    if fault.effect == "broken":
        return HttpResponse('{"status_code": "200", "transaction_st', content_type="application/json")
    return JsonResponse({"status_code": str(fault.status), "status_message": "Server error"}, status=fault.status)


def _refused(error: ApiError, is_snap: bool, *, http: int = 200) -> HttpResponse:
    if is_snap:
        return JsonResponse({"error_messages": [error.message]}, status=401 if error.code == "401" else 400)
    body = {"status_code": error.code, "status_message": error.message, "id": str(uuid.uuid4())}
    return JsonResponse(body, status=http)


def _finish(call: Call, response: HttpResponse) -> HttpResponse:
    call.answer = response.status_code
    return response


def _http(code: int) -> int:
    """The HTTP code of an answer; those that say the state of a payment are 200."""
    return code if code in (201, 202) else 200


def _is_authorized(request: HttpRequest, sandbox: Sandbox, name: str) -> bool:
    if name == "token" and request.GET.get("client_key"):
        return True
    scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
    try:
        user, _, password = base64.b64decode(encoded, validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return False
    return scheme.lower() == "basic" and not password and hmac.compare_digest(user, sandbox.server_key.encode())


def _data(request: HttpRequest) -> tuple[dict[str, Any], str]:
    """The body and what is wrong with it."""
    if not request.body:
        return {}, ""
    try:
        data = json.loads(request.body)
    except (ValueError, RecursionError):
        return {}, "the body is not JSON"
    return (data, "") if isinstance(data, dict) else ({}, "the body is not an object")


def _order_id(data: dict[str, Any]) -> str:
    details = data.get("transaction_details")
    return str(details.get("order_id", "")) if isinstance(details, dict) else ""


def _urls(request: HttpRequest, sandbox: Sandbox) -> tuple[str, ...]:
    """Three at most; an override wins over an addition."""
    if override := request.headers.get("X-Override-Notification"):
        return tuple(override.replace(" ", "").split(",")[:3])
    if addition := request.headers.get("X-Append-Notification"):
        own = [sandbox.notifier.url] if sandbox.notifier.url else []
        return tuple([*own, *addition.replace(" ", "").split(",")][:3])
    return ()


def _body(sandbox: Sandbox, transaction: Transaction, message: str) -> dict[str, Any]:
    return transaction.body(sandbox.server_key, message=message, expire_code="407")


def _account_body(sandbox: Sandbox, account_id: str) -> dict[str, Any]:
    found = sandbox.account(account_id)
    code = {"PENDING": "201", "ENABLED": "200", "DISABLED": "204"}.get(found.status, "202")
    body: dict[str, Any] = {
        "status_code": code,
        "payment_type": "gopay",
        "account_id": account_id,
        "account_status": found.status,
    }
    if found.status == "PENDING":
        link = f"{sandbox.address}/sandbox/link/{account_id}"
        body["actions"] = [{"name": "activation-link-url", "method": "GET", "url": link}]
    elif found.status == "ENABLED":
        balance = {"value": "8000000.00", "currency": "IDR"}
        wallet = {"name": "GOPAY_WALLET", "active": True, "balance": balance, "token": found.wallet_token}
        body["metadata"] = {"payment_options": [wallet]}
    return body
