"""A company's plan: what it is, what happens next, and changing it. Room: billing."""

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _

from billing import checkout, clock
from billing.console import offers, uses, wording
from billing.console.invoices import lead_to_payment
from billing.console.shell import company_of, page, show, to, try_it
from billing.entitlements import FREE
from billing.models import AccessGrant, Invoice, Plan, Price, Subscription
from billing.money import rupiah
from billing.problems import BillingError
from billing.quotes import Quote, Takes
from tenants.access import NotVisible
from tenants.pages import actor_of, limits_of, own_company


@page("GET")
def own(request: HttpRequest) -> HttpResponse:
    """The page of whoever asks; an operator chooses a company first."""
    company = own_company(request)
    if company is None:
        return HttpResponseRedirect(reverse("admin:billing_subscription_changelist"))
    return to("company", company.pk)


@page("GET")
def plan(request: HttpRequest, company_id: str) -> HttpResponse:
    """The plan and what happens next; the part is refreshed while somebody looks at it."""
    company = company_of(request, company_id)
    subscription = _subscription(company)
    now = clock.now()
    situation = wording.situation(company, subscription, _gift(company), now)
    unpaid = Invoice.objects.filter(subscription__company=company, state=Invoice.State.OPEN)
    open_invoice = unpaid.select_related("price__plan").first()
    context = {
        "company": company,
        "situation": situation,
        "uses": uses.all_uses(company),
        "limits": offers.limits(limits_of(company)),
        "offers": offers.offers(company, subscription),
        "tax_rate": wording.tax_rate(settings.GATEWAY_TAX_RATE),
        "open_invoice": open_invoice,
        "open_text": wording.invoice_text(open_invoice) if open_invoice is not None else "",
        "open_total": rupiah(open_invoice.total) if open_invoice is not None else "",
        "version": _version(situation.headline, company.tier.code, company.status, open_invoice and open_invoice.pk),
        "tab": "plan",
    }
    return show(request, "plan", _("Plan and payment"), context)


@page("GET", "POST")
def choose(request: HttpRequest, company_id: str, price_id: str) -> HttpResponse:
    """What a choice costs and what it does; then does it, and leads to the payment where there is something to pay."""
    company = company_of(request, company_id)
    price = _price(price_id)
    if request.method == "POST":
        return _take(request, company, price)
    actor = actor_of(request)
    try:
        offer = checkout.quote(actor, company, price)
    except BillingError as error:
        messages.error(request, str(error))
        return to("company", company.pk)
    losses = offers.losses(limits_of(company), price.plan.tier, uses.users_and_accounts(company))
    name = f"{price.plan.name}, {wording.interval_name(price.interval)}"
    context = {
        "company": company,
        "price": price,
        "choice": name,
        "per_interval": wording.per_interval(price),
        "is_payable": offer.is_now,
        "is_nothing": offer.takes is Takes.NOTHING,
        "explanation": _explained(offer, name),
        "net": rupiah(offer.net),
        "tax": rupiah(offer.tax),
        "total": rupiah(offer.total),
        "tax_rate": wording.tax_rate(offer.tax_rate),
        "losses": losses,
        "losses_title": _("Becomes less:"),
        "tab": "plan",
    }
    return show(request, "choose", _("Choose %(name)s") % {"name": name}, context)


def _take(request: HttpRequest, company: Any, price: Price) -> HttpResponse:
    try:
        invoice = checkout.change_plan(actor_of(request), company, price)
    except BillingError as error:
        messages.error(request, str(error))
        return to("company", company.pk)
    if invoice is not None:
        return lead_to_payment(request, invoice)
    messages.success(request, _("Your choice is kept: it begins with the next period."))
    return to("company", company.pk)


@page("GET", "POST")
def cancel(request: HttpRequest, company_id: str) -> HttpResponse:
    company = company_of(request, company_id)
    subscription = _subscription(company)
    situation = wording.situation(company, subscription, _gift(company), clock.now())
    if subscription is None or not situation.can_cancel:
        messages.info(request, _("There is nothing to cancel."))
        return to("company", company.pk)
    if request.method == "POST":
        if try_it(request, lambda actor: checkout.cancel(actor, company)):
            messages.success(request, _("The plan is cancelled."))
        return to("company", company.pk)
    is_running = subscription.state == "active"
    end = wording.day_and_time(subscription.paid_until) if subscription.paid_until is not None else ""
    if is_running:
        text = _("Everything goes on as it is until %(end)s. Nothing is charged after that, and nothing is paid back.")
    else:
        text = _("The plan ends now, with the limits of FREE. The open invoice is void, nothing is charged any more.")
    free = Plan.objects.select_related("tier").get(tier__code=FREE)
    context = {
        "company": company,
        "text": text % {"end": end},
        "losses": offers.losses(limits_of(company), free.tier, uses.users_and_accounts(company)),
        "losses_title": _("From then on, with FREE:") if is_running else _("With FREE:"),
        "button": _("Cancel the plan"),
        "is_serious": True,
        "back_url": "billing:company",
        "back_id": company.pk,
        "tab": "plan",
    }
    return show(request, "ask", _("Cancel the plan"), context)


@page("GET", "POST")
def withdraw(request: HttpRequest, company_id: str) -> HttpResponse:
    company = company_of(request, company_id)
    subscription = _subscription(company)
    situation = wording.situation(company, subscription, _gift(company), clock.now())
    if subscription is None or not situation.can_withdraw:
        messages.info(request, _("There is no cancellation to take back."))
        return to("company", company.pk)
    if request.method == "POST":
        if try_it(request, lambda actor: checkout.withdraw_cancel(actor, company)):
            messages.success(request, _("The cancellation is taken back: the plan goes on."))
        return to("company", company.pk)
    price = subscription.next_price or subscription.price
    text = _("The plan goes on after its paid time, for %(price)s.")
    context = {
        "company": company,
        "text": text % {"price": wording.per_interval(price) if price is not None else ""},
        "button": _("Keep the plan"),
        "back_url": "billing:company",
        "back_id": company.pk,
        "tab": "plan",
    }
    return show(request, "ask", _("Take the cancellation back"), context)


def _explained(offer: Quote, name: str) -> list[str]:
    start, end = wording.day(offer.period_start), wording.day(offer.period_end)
    values = {"name": name, "start": start, "end": end}
    if offer.takes is Takes.NOTHING:
        return [_("This is what you have, or have chosen for the next period.")]
    if offer.takes is Takes.AT_PERIOD_END:
        return [
            _("Nothing is to be paid now, and nothing changes before %(start)s. From then on it is %(name)s.") % values,
            _("You can choose differently until then."),
        ]
    kinds: dict[Invoice.Kind | None, str] = {
        Invoice.Kind.FIRST: _("It begins as soon as the payment has arrived, and is then paid for one period."),
        Invoice.Kind.RENEWAL: _("It takes the place of the invoice that is open. Access is back once it is paid."),
        Invoice.Kind.UPGRADE: _(
            "You pay the difference for the rest of the period, until %(end)s. The larger limits hold as soon as the "
            "payment has arrived; the end of the period stays."
        ),
        Invoice.Kind.CHANGE: _(
            "A new period begins as soon as the payment has arrived, until %(end)s. What is left of the running one is "
            "taken off."
        ),
    }
    return [kinds[offer.kind] % values]


def _price(price_id: str) -> Price:
    """One that is offered. Raises NotVisible: prices are the same for all companies, so that nothing is told by it."""
    rows = Price.objects.select_related("plan__tier").filter(is_active=True, plan__is_public=True)
    row = rows.filter(pk=int(price_id)).first() if price_id.isdecimal() and len(price_id) < 10 else None
    if row is None:
        raise NotVisible("there is no such price")
    return row


def _subscription(company: Any) -> Subscription | None:
    rows = Subscription.objects.select_related("company__tier", "price__plan__tier", "next_price__plan", "method")
    return rows.filter(company_id=company.pk).first()


def _gift(company: Any) -> AccessGrant | None:
    now = clock.now()
    rows = AccessGrant.objects.select_related("plan").filter(company_id=company.pk, invoice__isnull=True)
    running = rows.filter(revoked_at__isnull=True, starts_at__lte=now, ends_at__gt=now)
    return running.order_by("-plan__rank", "-ends_at").first()


def _version(*parts: object) -> str:
    return "|".join(str(part) for part in parts)
