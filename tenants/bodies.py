"""What the pages and endpoints of this room take as a body, in bytes. Room: tenants.

Public: the server has to let a little more through than each of them accepts, so that it can say so itself.
"""

from django.http import HttpRequest

# A file with a list of MT5 accounts.
CSV_SIZE_LIMIT = 1_048_576
# The exchange of an API key for a token.
EXCHANGE_SIZE_LIMIT = 4_096


def is_trimmed(request: HttpRequest) -> bool:
    """Whether the server has dropped the end of the body: what a form in it holds is not all that was sent."""
    return bool(getattr(request, "scope", {}).get("body_trimmed"))
