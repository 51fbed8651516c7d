"""What companies use. Room: usage."""

from django.apps import AppConfig


class UsageConfig(AppConfig):
    name = "usage"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from billing.console.uses import add_use
        from usage.places import data_of_month

        add_use(data_of_month)
