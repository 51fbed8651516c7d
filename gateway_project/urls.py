"""All HTTP paths. Room: gateway_project."""

from django.contrib import admin
from django.urls import include, path

from gateway_project.views import version
from streaming.views import livez, metrics, readyz

urlpatterns = [
    # Its pages below /admin/ go before those that the admin takes for models.
    path("", include("tenants.signin.urls")),
    path("admin/live/", include("streaming.console.urls")),
    path("admin/billing/", include("billing.console.urls")),
    path("admin/", admin.site.urls),
    path("livez", livez),
    path("readyz", readyz),
    path("metrics", metrics),
    path("version", version),
    path("", include("billing.urls")),
    path("", include("tenants.urls")),
]
