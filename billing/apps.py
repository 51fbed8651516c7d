"""Plans, invoices, payments. Room: billing."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class BillingConfig(AppConfig):
    name = "billing"
    verbose_name = _("Plans and payments")

    def ready(self) -> None:
        from billing import checks, methods, scope  # noqa: F401  # checks register themselves

        scope.register()
        methods.register()
