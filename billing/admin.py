"""Where Django looks for the admin's pages; they are in ``billing.console``. Room: billing."""

from billing.console import gifts, payments, records, sales  # noqa: F401  # each registers itself
