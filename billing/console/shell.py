"""What the pages of a company's plan and payments share. Room: billing.

A company, an invoice or a payment method of others answers word for word as one that never was.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any
from urllib.parse import urlsplit

from csp.decorators import csp_update
from django.conf import settings
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from billing.midtrans.client import page_url_of
from billing.problems import BillingError
from tenants import access
from tenants.access import Actor, NotVisible
from tenants.pages import actor_of

# Asked for by the pages' own script: what may have changed, without the rest of the page.
PART_HEADER = "X-Billing-Part"
View = Callable[..., HttpResponseBase]


def page(*methods: str) -> Callable[[View], View]:
    """A page behind the admin's door, for operators and company admins; NotVisible answers 404.

    Its forms may lead to the payment page of Midtrans, which browsers count as a target of the form.
    """

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(request: HttpRequest, **kwargs: str) -> HttpResponseBase:
            leading_on: View = csp_update({"form-action": [payment_origin()]})(view)
            try:
                return leading_on(request, **kwargs)
            except NotVisible:
                return _not_found(request)

        return admin.site.admin_view(require_http_methods([*methods, "HEAD"])(guarded))

    return decorate


def payment_origin(url: str = "") -> str:
    """Of this payment page, or of all that are expected: "https://app.midtrans.com"."""
    parts = urlsplit(url or page_url_of(settings.MIDTRANS_BASE_URL))
    return f"{parts.scheme}://{parts.netloc}"


def show(
    request: HttpRequest, name: str, title: str, context: dict[str, Any], *, status: int = 200
) -> TemplateResponse:
    """The page ``billing/console/<name>.html``, or its part ``<name>_part.html`` where the script asks for it."""
    request.current_app = admin.site.name
    file = f"{name}_part" if PART_HEADER in request.headers and "version" in context else name
    whole = {**admin.site.each_context(request), "title": title, "name": name, "sees_all": actor_of(request).sees_all}
    whole |= context
    return TemplateResponse(request, f"billing/console/{file}.html", whole, status=status)


def company_of(request: HttpRequest, company_id: str) -> Any:
    """The company that a page is about, with its tier. Raises NotVisible."""
    return access.company(actor_of(request), company_id)


def try_it(request: HttpRequest, act: Callable[[Actor], object]) -> bool:
    """Does it in the name of who asks; what cannot be done is said on the next page. False: it was not done."""
    try:
        act(actor_of(request))
    except BillingError as error:
        messages.error(request, str(error))
        return False
    return True


def to(name: str, *args: Any) -> HttpResponseRedirect:
    return HttpResponseRedirect(reverse(f"billing:{name}", args=args))


def _not_found(request: HttpRequest) -> TemplateResponse:
    return show(request, "not_found", _("Not found"), {}, status=404)
