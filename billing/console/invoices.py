"""A company's invoices: the list and what happened, one invoice, paying it, its PDF. Room: billing."""

from django.conf import settings
from django.contrib import messages
from django.core.cache import cache
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import translation
from django.utils.translation import gettext as _

from billing import checkout, clock
from billing.console import history, wording
from billing.console.shell import company_of, page, payment_origin, show, to
from billing.invoice_pdf import render
from billing.models import Invoice, PaymentAttempt, Transaction
from billing.money import rupiah
from billing.polling import poll_attempt
from billing.problems import BillingError
from billing.transitions import PaymentState, is_final
from tenants import access
from tenants.access import NotVisible
from tenants.pages import actor_of

_PAGE_SIZE = 25
_LANGUAGES = ("id", "en")


@page("GET")
def listed(request: HttpRequest, company_id: str) -> HttpResponse:
    company = company_of(request, company_id)
    rows = Invoice.objects.filter(subscription__company_id=company.pk).select_related("price__plan")
    shown = Paginator(rows, _PAGE_SIZE).get_page(request.GET.get("p"))
    context = {
        "company": company,
        "page": shown,
        "invoices": [(row, wording.invoice_text(row), wording.invoice_state(row), rupiah(row.total)) for row in shown],
        "events": history.of_company(company.pk),
        "languages": _LANGUAGES,
        "tab": "invoices",
    }
    return show(request, "invoices", _("Invoices"), context)


@page("GET")
def invoice(request: HttpRequest, number: str) -> HttpResponse:
    """One invoice and where its payment stands; the part is refreshed until the payment has come to an end."""
    row = _find(request, number)
    last = _last_payment(row)
    is_open = row.state == Invoice.State.OPEN
    page_url = _page_url(row)
    is_waiting = is_open and last is not None and not is_final(PaymentState(last.state))
    context = {
        "company": row.subscription.company,
        "invoice": row,
        "text": wording.invoice_text(row),
        "state": wording.invoice_state(row),
        "period": (wording.day(row.period_start), wording.day(row.period_end)),
        "due": wording.day_and_time(row.due_at),
        "paid": wording.day_and_time(row.paid_at) if row.paid_at is not None else "",
        "net": rupiah(row.net),
        "tax": rupiah(row.tax),
        "tax_rate": wording.tax_rate(row.tax_rate),
        "total": rupiah(row.total),
        "returned": rupiah(row.returned) if row.returned else "",
        "is_open": is_open,
        "is_paid": row.state == Invoice.State.PAID,
        "is_begun": last is not None,
        "progress": _progress(last),
        "plan_name": row.price.plan.name,
        "page_url": page_url,
        "can_ask": is_open and last is not None,
        "is_waiting": is_waiting,
        # The customer has chosen how to pay, or has just come back from the payment page.
        "is_under_way": is_waiting and (_is_chosen(last) or "transaction_status" in request.GET),
        "version": f"{row.state}|{row.returned}|{_state_of(last)}|{bool(page_url)}",
        "languages": _LANGUAGES,
        "tab": "invoices",
    }
    return show(request, "invoice", _("Invoice %(number)s") % {"number": row.number}, context)


@page("POST")
def pay(request: HttpRequest, number: str) -> HttpResponse:
    """Leads to the payment page of Midtrans."""
    return lead_to_payment(request, _find(request, number))


@page("POST")
def ask(request: HttpRequest, number: str) -> HttpResponse:
    """Asks Midtrans now, for those who have paid and wait: a notification can be late."""
    row = _find(request, number)
    attempt = row.attempts.order_by("-id").first()
    if row.state == Invoice.State.OPEN and attempt is not None and _may_ask(attempt):
        poll_attempt(attempt, source=actor_of(request).name)
        row.refresh_from_db()
    if row.state == Invoice.State.OPEN:
        messages.info(request, _("Midtrans has not told of a payment yet. This page goes on looking by itself."))
    return to("invoice", row.number)


@page("GET")
def pdf(request: HttpRequest, number: str, language: str) -> HttpResponse:
    row = _find(request, number)
    if language not in _LANGUAGES:
        raise NotVisible("there is no such language")
    with translation.override(language):
        body = render(row)
    answer = HttpResponse(body, content_type="application/pdf")
    answer["Content-Disposition"] = f'inline; filename="{row.number}-{language}.pdf"'
    return answer


def lead_to_payment(request: HttpRequest, row: Invoice) -> HttpResponse:
    """To the payment page; to the invoice, with what to do, where there is none to be had."""
    path = reverse("billing:invoice", args=[row.number])
    base = settings.GATEWAY_PUBLIC_URL
    back = f"{base}{path}" if base else request.build_absolute_uri(path)
    try:
        url = checkout.open_page(actor_of(request), row, finish_url=back)
    except BillingError as error:
        messages.error(request, str(error))
        return HttpResponseRedirect(path)
    # A browser follows no form to an address that the page has not named; the invoice's page has a link to it.
    return HttpResponseRedirect(url if payment_origin(url) == payment_origin() else path)


def _find(request: HttpRequest, number: str) -> Invoice:
    row: Invoice = access.find(actor_of(request), Invoice, number=number)
    # The company and the plan are on every page of it.
    return Invoice.objects.select_related("subscription__company__tier", "price__plan").get(pk=row.pk)


def _last_payment(row: Invoice) -> PaymentAttempt | Transaction | None:
    """What says most about where the payment stands: the latest transaction, or the attempt that has none yet."""
    attempt = row.attempts.order_by("-id").first()
    if attempt is None:
        return None
    return attempt.transactions.order_by("-id").first() or attempt


def _state_of(last: PaymentAttempt | Transaction | None) -> str:
    return "" if last is None else f"{last._meta.model_name}{last.pk}{last.state}"


def _is_chosen(last: PaymentAttempt | Transaction | None) -> bool:
    return last is not None and last.state != PaymentState.CREATED


def _progress(last: PaymentAttempt | Transaction | None) -> str:
    if last is None:
        return ""
    kind = last.payment_type if isinstance(last, Transaction) else ""
    return wording.payment_text(PaymentState(last.state), kind)


def _page_url(row: Invoice) -> str:
    """Of a payment page that was opened and can still be used; "" when there is none."""
    if row.state != Invoice.State.OPEN:
        return ""
    attempt = row.attempts.filter(is_closed=False).exclude(page_url="").order_by("-id").first()
    if attempt is None or is_final(PaymentState(attempt.state)):
        return ""
    is_alive = attempt.page_expires_at is not None and attempt.page_expires_at > clock.now()
    return attempt.page_url if is_alive or attempt.state == PaymentState.PENDING else ""


def _may_ask(attempt: PaymentAttempt) -> bool:
    """Not more often than every few seconds, whoever presses the button."""
    return bool(cache.add(f"billing-ask-{attempt.pk}", 1, timeout=5))
