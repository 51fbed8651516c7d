"""HTTP paths of the tenants room."""

from django.urls import path

from tenants.views import exchange_api_key

urlpatterns = [path("api/v1/tokens", exchange_api_key, name="exchange-api-key")]
