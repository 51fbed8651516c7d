"""How large the body of a request may be, by its path. Room: gateway_project.

Every path has one bound that counts, and says so: a page or endpoint that has a limit of its own gets enough of a body
to see that it is above it; everywhere else the server ends the request at ``BODY_MAX_SIZE``.
"""

from django.urls import reverse

from billing.midtrans.payload import BODY_SIZE_LIMIT as PAYMENT_NEWS_LIMIT
from streaming.wire.http import BodyBound
from tenants.bodies import CSV_SIZE_LIMIT, EXCHANGE_SIZE_LIMIT

# The file is a part of a form, and after the preview it comes once more, signed and in base64.
_CSV_FORM_SIZE = 2 * CSV_SIZE_LIMIT


def body_bounds() -> dict[str, BodyBound]:
    """What the server takes; keys are paths without slashes at their end. Call it once Django is set up."""
    bounds = {
        reverse("admin:tenants_mt5account_import"): BodyBound(_CSV_FORM_SIZE, is_trimmed=True),
        reverse("exchange-api-key"): BodyBound(EXCHANGE_SIZE_LIMIT + 1, is_trimmed=True),
        reverse("midtrans-notification"): BodyBound(PAYMENT_NEWS_LIMIT + 1, is_trimmed=True),
        reverse("billing-events"): BodyBound(PAYMENT_NEWS_LIMIT + 1, is_trimmed=True),
    }
    return {path.rstrip("/"): bound for path, bound in bounds.items()}
