"""Where the stand-in answers: Midtrans' paths, and its own below /sandbox/. Room: billing (sandbox)."""

from django.urls import path

from billing.sandbox import api, control, pages

urlpatterns = [
    path("", pages.home),
    path("snap/v1/transactions", api.snap),
    path("snap/v4/redirection/<str:token>", pages.snap_page),
    path("v2/token", api.card_token),
    path("v2/card/register", api.card_register),
    path("v2/charge", api.charge),
    path("v2/pay/account", api.link_account),
    path("v2/pay/account/<str:account_id>", api.account),
    path("v2/pay/account/<str:account_id>/unbind", api.unbind),
    path("v2/<str:reference>/status", api.status),
    path("v2/<str:reference>/cancel", api.cancel),
    path("v2/<str:reference>/expire", api.expire),
    path("v2/<str:reference>/approve", api.approve),
    path("v2/<str:reference>/deny", api.deny),
    path("v2/<str:reference>/refund", api.refund),
    path("v2/<str:reference>/refund/online/direct", api.refund),
    path("sandbox/pay/<str:transaction_id>", pages.pay_page),
    path("sandbox/link/<str:account_id>", pages.link_page),
    path("sandbox/log", control.log),
    path("sandbox/faults", control.faults),
    path("sandbox/cards", control.card),
    path("sandbox/resend", control.resend),
    path("sandbox/reset", control.reset),
    path("sandbox/orders/<str:order_id>/choose", control.choose),
    path("sandbox/orders/<str:order_id>/act", control.act),
]
