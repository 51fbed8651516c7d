"""What renewals of a company are charged to: saved cards and linked GoPay accounts. Room: billing."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from billing import clock, methods
from billing.console import wording
from billing.console.shell import company_of, page, show, to, try_it
from billing.models import PaymentMethod, Subscription
from tenants import access
from tenants.access import NotVisible
from tenants.pages import actor_of


@page("GET")
def listed(request: HttpRequest, company_id: str) -> HttpResponse:
    company = company_of(request, company_id)
    default = Subscription.objects.filter(company_id=company.pk).values_list("method_id", flat=True).first()
    kept = PaymentMethod.objects.filter(company_id=company.pk, removed_at__isnull=True)
    context = {
        "company": company,
        "methods": [_row(method, default) for method in kept],
        "tab": "methods",
    }
    return show(request, "methods", _("Payment methods"), context)


@page("GET", "POST")
def remove(request: HttpRequest, method_id: str) -> HttpResponse:
    method = _find(request, method_id)
    company_id, name = method.company_id, wording.method_name(method)
    if request.method == "POST":
        if try_it(request, lambda actor: methods.remove(actor, method)):
            messages.success(request, _("%(name)s is removed.") % {"name": name})
        return to("methods", company_id)
    is_default = Subscription.objects.filter(company_id=company_id, method=method).exists()
    text = (
        _("%(name)s is forgotten, here and for good. Renewals are then paid by an invoice that you get by e-mail.")
        if is_default
        else _("%(name)s is forgotten, here and for good. Renewals do not use it.")
    )
    context = {
        "company": method.company,
        "text": text % {"name": name},
        "button": _("Remove"),
        "is_serious": True,
        "back_url": "billing:methods",
        "back_id": company_id,
        "tab": "methods",
    }
    return show(request, "ask", _("Remove %(name)s") % {"name": name}, context)


@page("GET", "POST")
def make_default(request: HttpRequest, method_id: str) -> HttpResponse:
    method = _find(request, method_id)
    company_id, name = method.company_id, wording.method_name(method)
    if request.method == "POST":
        if try_it(request, lambda actor: methods.make_default(actor, method)):
            messages.success(request, _("Renewals are charged to %(name)s from now on.") % {"name": name})
        return to("methods", company_id)
    context = {
        "company": method.company,
        "text": _("Renewals are charged to %(name)s from now on, without asking you each time.") % {"name": name},
        "button": _("Use for renewals"),
        "back_url": "billing:methods",
        "back_id": company_id,
        "tab": "methods",
    }
    return show(request, "ask", _("Use %(name)s for renewals") % {"name": name}, context)


def _find(request: HttpRequest, method_id: str) -> PaymentMethod:
    """One that is not removed. Raises NotVisible."""
    row: PaymentMethod = access.find(actor_of(request), PaymentMethod, pk=method_id)
    if row.removed_at is not None:
        raise NotVisible("it is removed")
    return row


def _row(method: PaymentMethod, default: int | None) -> dict[str, Any]:
    expires, state = method.expires_at, ""
    if method.refused_at is not None:
        state = _("refused by the bank: it is not charged any more")
    elif expires is not None and expires <= clock.now():
        state = _("expired")
    elif expires is not None:
        state = _("valid until %(day)s") % {"day": wording.day(expires)}
    return {
        "row": method,
        "name": wording.method_name(method),
        "state": state,
        "is_default": method.pk == default,
        "is_usable": method.refused_at is None and (expires is None or expires > clock.now()),
    }
