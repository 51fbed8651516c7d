"""Places at which tests kill the process. Room: billing.

``GATEWAY_BILLING_FAULT`` names one; without it, and in production always, ``reach`` does nothing.
"""

import os
import signal

from django.conf import settings

# In the order of a charge.
BEFORE_CHARGE = "before_charge"
AFTER_CHARGE = "after_charge"
BEFORE_STORE = "before_store"
AFTER_STORE = "after_store"
AFTER_PREPARE = "after_prepare"
BEFORE_NOTE = "before_note"
POINTS = (AFTER_PREPARE, BEFORE_CHARGE, AFTER_CHARGE, BEFORE_STORE, AFTER_STORE, BEFORE_NOTE)


def reach(point: str) -> None:
    """Does not come back where this is the place: the process is gone as if its machine had lost its power."""
    if settings.GATEWAY_ENVIRONMENT == "development" and point == settings.GATEWAY_BILLING_FAULT:
        os.kill(os.getpid(), signal.SIGKILL)
