"""All HTTP paths. Room: gateway_project."""

from django.contrib import admin
from django.urls import include, path

from gateway_project.views import version
from streaming.views import livez, metrics, readyz

urlpatterns = [
    path("admin/", admin.site.urls),
    path("livez", livez),
    path("readyz", readyz),
    path("metrics", metrics),
    path("version", version),
    path("", include("tenants.urls")),
]
