"""For tests and demonstrations: what happened, what shall go wrong, what others do. Room: billing (sandbox).

Changes take a JSON body, which no page of another origin can send here without being asked first.
"""

import json
from dataclasses import asdict
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse

from billing.sandbox.faults import API_CALLS, API_EFFECTS, NOTIFICATION_EFFECTS
from billing.sandbox.methods import ApiError
from billing.sandbox.pages import METHODS, play
from billing.sandbox.state import Sandbox


async def log(_request: HttpRequest, sandbox: Sandbox) -> HttpResponse:
    """GET: transactions, pages, calls and notifications with every answer they got."""
    return JsonResponse(sandbox.listed())


async def faults(request: HttpRequest, sandbox: Sandbox) -> HttpResponse:
    """GET lists what is waiting and what there is; POST adds one fault, or a list of them; DELETE takes all away."""
    if request.method == "DELETE":
        sandbox.faults.clear()
    elif request.method == "POST":
        data = _json(request)
        try:
            for item in data if isinstance(data, list) else [data]:
                sandbox.faults.add(item)
        except (TypeError, ValueError) as error:
            raise ApiError("400", str(error)) from None
    known = {"calls": [*API_CALLS], "api": API_EFFECTS, "notification": NOTIFICATION_EFFECTS}
    return JsonResponse({"waiting": sandbox.faults.listed(), "known": known})


async def choose(request: HttpRequest, sandbox: Sandbox, order_id: str) -> HttpResponse:
    """POST {"method": "gopay"}: the customer opens the page of an order and picks a method."""
    method = _object(request).get("method")
    page = next((page for page in sandbox.pages.values() if page.order_id == order_id), None)
    if page is None:
        raise ApiError("404", "no page was opened for this order")
    if method not in METHODS:
        raise ApiError("400", f"method is one of {', '.join(METHODS)}")
    transaction = sandbox.choose(page, method)
    return JsonResponse({"order_id": order_id, "state": transaction.state, "possible": transaction.possible()})


async def act(request: HttpRequest, sandbox: Sandbox, order_id: str) -> HttpResponse:
    """POST {"action": "pay"}: as the button of that name."""
    transaction = sandbox.find(order_id)
    play(sandbox, transaction, str(_object(request).get("action")))
    return JsonResponse({"order_id": order_id, "state": transaction.state, "possible": transaction.possible()})


async def card(request: HttpRequest, sandbox: Sandbox) -> HttpResponse:
    """POST {"token": …, "behaviour": "51"}: how charges of a saved card end from now on; "gone" forgets it."""
    data = _object(request)
    known = sandbox.cards.get(str(data.get("token")))
    if known is None:
        raise ApiError("404", "no such card")
    if data.get("behaviour") == "gone":
        del sandbox.cards[known.token]
    else:
        known.behaviour = str(data.get("behaviour", "accept"))
    return JsonResponse(asdict(known))


async def resend(request: HttpRequest, sandbox: Sandbox) -> HttpResponse:
    """POST {"number": 3}: the same notification once more, as it was."""
    if not sandbox.notifier.resend(int(_object(request).get("number", 0))):
        raise ApiError("404", "no such notification")
    return JsonResponse({})


async def reset(request: HttpRequest, sandbox: Sandbox) -> HttpResponse:
    """POST {}: as just started."""
    _object(request)
    sandbox.reset()
    return JsonResponse({})


def _json(request: HttpRequest) -> Any:
    if request.method != "POST" or request.content_type != "application/json":
        raise ApiError("400", "use POST with Content-Type: application/json")
    try:
        return json.loads(request.body)
    except (ValueError, RecursionError):
        raise ApiError("400", "the body is not JSON") from None


def _object(request: HttpRequest) -> dict[str, Any]:
    data = _json(request)
    if not isinstance(data, dict):
        raise ApiError("400", "the body is not an object")
    return data
