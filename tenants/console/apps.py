"""The admin on our own site, in place of "django.contrib.admin". Room: tenants."""

from django.contrib import admin
from django.contrib.admin.apps import AdminConfig

# Where the code of an admin page may come from.
_OURS = ("tenants.", "billing.", "usage.", "events.", "backends.", "streaming.", "gateway_project.")


class ConsoleAdminConfig(AdminConfig):
    """Stands after "tenants" in INSTALLED_APPS, so that our templates win over the admin's own."""

    default_site = "tenants.console.site.ConsoleSite"

    def ready(self) -> None:
        super().ready()
        # Packages bring pages of their own that ask flags, not roles; some show the secrets of two-factor devices.
        for model, model_admin in list(admin.site._registry.items()):
            if not type(model_admin).__module__.startswith(_OURS):
                admin.site.unregister(model)
