"""Where payments are told: Midtrans' notifications, and signed events of a payment service of ours. Room: billing.

Cheap refusals first; what is genuine is stored, answered, and only then looked after. Midtrans takes any redirect for
a failure without a second try and repeats a 500 only once, so there is neither.
"""

import re
from collections.abc import Callable
from functools import wraps
from typing import Any

import structlog
from django.conf import settings
from django.db.models import Exists
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from billing import background, clock, intake
from billing.midtrans.payload import BODY_SIZE_LIMIT, Kind, PayloadError, decode, kind_of, parse_transaction
from billing.midtrans.signature import (
    ORDER_ID,
    Keys,
    SignatureRefused,
    verify_account,
    verify_event,
    verify_notification,
)
from billing.models import PaymentAttempt, WebhookReceipt
from tenants.problems import problem

log = structlog.get_logger(__name__)

_CONTENT_LENGTH = re.compile(r"[0-9]{1,18}")
_RETRY_AFTER = 120.0
Source = WebhookReceipt.Source
Verdict = WebhookReceipt.Verdict
# The body as received, and the object in it.
Message = tuple[bytes, dict[str, Any]]
View = Callable[[HttpRequest], HttpResponse]


def _endpoint(handle: Callable[[HttpRequest, Message], HttpResponse]) -> View:
    """POST, JSON, bounded; and whatever else goes wrong is "come again", never an error page."""

    @csrf_exempt  # no cookie is read here: the signature is the proof
    @wraps(handle)
    def view(request: HttpRequest) -> HttpResponse:
        try:
            message = _message_of(request)
            answer = message if isinstance(message, HttpResponse) else handle(request, message)
        except Exception as error:
            # The kind only: the text of an error may repeat what was sent.
            log.error("webhook_unavailable", path=request.path, error=type(error).__name__)
            answer = problem(503, "unavailable", "send it again later", retry_after=_RETRY_AFTER)
        answer["Content-Length"] = str(len(answer.content))
        return answer

    return view


@_endpoint
def midtrans_notification(request: HttpRequest, message: Message) -> HttpResponse:
    """200: kept, and looked after. 403: not signed by a key of ours. 503: to be sent again."""
    data = message[1]
    try:
        kind = kind_of(data)
    except PayloadError:
        return problem(400, "malformed", "send a notification of Midtrans")
    if kind is Kind.SUBSCRIPTION:
        # Unsigned, and of a service that is not used here: renewals are charges of our own.
        return _without_effect(request, Source.MIDTRANS, message, Verdict.IGNORED, "unsigned")
    try:
        _verify(kind, data)
    except SignatureRefused as refusal:
        return _refuse(request, Source.MIDTRANS, message, refusal.code)
    if kind is Kind.ACCOUNT:
        return _accept(request, Source.MIDTRANS, message)
    order_id, event_key = data["order_id"], _event_key(data)
    # One question for both: answers are to be quick.
    applied = WebhookReceipt.objects.filter(source=Source.MIDTRANS, event_key=event_key, verdict=Verdict.APPLIED)
    known = PaymentAttempt.objects.filter(order_id=order_id).annotate(is_applied=Exists(applied))
    found = list(known.values_list("is_applied", flat=True))
    if not found:
        return _without_effect(request, Source.MIDTRANS, message, Verdict.IGNORED, "unknown_order", order_id)
    if found[0] and event_key:
        return _without_effect(request, Source.MIDTRANS, message, Verdict.DUPLICATE, "", order_id, event_key)
    return _accept(request, Source.MIDTRANS, message, order_id, event_key)


@_endpoint
def signed_event(request: HttpRequest, message: Message) -> HttpResponse:
    """As ``midtrans_notification``; signed over ``id.timestamp.body`` by one of GATEWAY_WEBHOOK_SECRETS."""
    body, data = message
    event_id = request.headers.get("webhook-id", "")
    if not settings.GATEWAY_WEBHOOK_SECRETS:
        return problem(403, "not_configured", "no events are taken here: set GATEWAY_WEBHOOK_SECRETS")
    try:
        verify_event(
            event_id=event_id,
            timestamp=request.headers.get("webhook-timestamp"),
            signature=request.headers.get("webhook-signature"),
            body=body,
            secrets=Keys.of(settings.GATEWAY_WEBHOOK_SECRETS),
            now=clock.now().timestamp(),
        )
    except SignatureRefused as refusal:
        return _refuse(request, Source.EVENTS, message, refusal.code)
    subject = data.get("data")
    order_id = subject.get("order_id") if isinstance(subject, dict) else ""
    order_id = order_id if isinstance(order_id, str) and ORDER_ID.fullmatch(order_id) else ""
    known = WebhookReceipt.objects.filter(source=Source.EVENTS, event_key=event_id)
    if known.filter(verdict__in=(Verdict.WAITING, Verdict.APPLIED)).exists():
        return _without_effect(request, Source.EVENTS, message, Verdict.DUPLICATE, "", order_id, event_id)
    return _accept(request, Source.EVENTS, message, order_id, event_id)


def _message_of(request: HttpRequest) -> Message | HttpResponse:
    """The message, or the answer to something that is none."""
    if request.method != "POST":
        answer = problem(405, "method_not_allowed", "send a POST")
        answer["Allow"] = "POST"
        return answer
    if request.content_type != "application/json":
        return problem(415, "unsupported_media_type", "send application/json")
    too_large = problem(413, "too_large", f"the body takes at most {BODY_SIZE_LIMIT} bytes")
    length = request.headers.get("Content-Length", "0")
    if _CONTENT_LENGTH.fullmatch(length) is None:
        return problem(400, "malformed", "send one JSON object")
    if int(length) > BODY_SIZE_LIMIT:
        return too_large
    # A chunked body comes without a length.
    body = request.read(BODY_SIZE_LIMIT + 1)
    if len(body) > BODY_SIZE_LIMIT:
        return too_large
    try:
        return body, decode(body)
    except PayloadError:
        return problem(400, "malformed", "send one JSON object")


def _verify(kind: Kind, data: dict[str, Any]) -> None:
    """Raises SignatureRefused. The literal texts of the body are what is signed."""
    names = (
        ("account_id", "account_status", "status_code")
        if kind is Kind.ACCOUNT
        else ("order_id", "status_code", "gross_amount")
    )
    fields = {name: value for name in names if isinstance(value := data.get(name), str)}
    signature = data.get("signature_key")
    if len(fields) < len(names) or not isinstance(signature, str | None):
        raise SignatureRefused("malformed")
    keys = Keys.of(settings.MIDTRANS_SIGNING_KEYS)
    verify = verify_account if kind is Kind.ACCOUNT else verify_notification
    verify(**fields, signature_key=signature, keys=keys)


def _event_key(data: dict[str, Any]) -> str:
    """What makes it the same event as another one; empty where it cannot be read, which is found out later."""
    try:
        return parse_transaction(data).event_key
    except PayloadError:
        return ""


def _accept(
    request: HttpRequest, source: Source, message: Message, order_id: str = "", event_key: str = ""
) -> HttpResponse:
    receipt = intake.accept(source, *message, address=_address(request), order_id=order_id, event_key=event_key)
    background.submit(receipt.pk)
    return _answer(Verdict.WAITING)


def _refuse(request: HttpRequest, source: Source, message: Message, code: str) -> HttpResponse:
    address = _address(request)
    order_id = message[1].get("order_id")
    order_id = order_id if isinstance(order_id, str) else ""
    kept = intake.keep_without_effect(source, *message, Verdict.REFUSED, code, address=address, order_id=order_id)
    log.warning("webhook_refused", source=source.value, code=code, address=address, kept=kept is not None)
    return problem(403, "signature_refused", "sign it with a key that is valid here")


def _without_effect(
    request: HttpRequest,
    source: Source,
    message: Message,
    verdict: Verdict,
    reason: str,
    order_id: str = "",
    event_key: str = "",
) -> HttpResponse:
    intake.keep_without_effect(
        source, *message, verdict, reason, address=_address(request), order_id=order_id, event_key=event_key
    )
    return _answer(verdict)


def _answer(verdict: Verdict) -> HttpResponse:
    return JsonResponse({"status": verdict.value}, headers={"Cache-Control": "no-store"})


def _address(request: HttpRequest) -> str:
    return str(request.META.get("REMOTE_ADDR", ""))
