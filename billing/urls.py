"""HTTP paths of the billing room. With and without the last slash: a redirect would lose what is told."""

from django.urls import re_path

from billing.views import midtrans_notification, signed_event

urlpatterns = [
    re_path(r"^billing/midtrans/notifications/?$", midtrans_notification, name="midtrans-notification"),
    re_path(r"^billing/events/?$", signed_event, name="billing-events"),
]
