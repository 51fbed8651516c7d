"""Where Django looks for the admin's pages; they are in ``tenants.console``. Room: tenants."""

from tenants.console import accounts, companies, keys, pairs, records, users  # noqa: F401  # each registers itself
