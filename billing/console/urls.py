"""Paths of the pages of plan and payments, below the admin and behind its door. Room: billing."""

from django.urls import path

from billing.console import invoices, methods, plans

app_name = "billing"

urlpatterns = [
    path("account/", plans.own, name="plan"),
    path("account/<str:company_id>/", plans.plan, name="company"),
    path("account/<str:company_id>/choose/<str:price_id>/", plans.choose, name="choose"),
    path("account/<str:company_id>/cancel/", plans.cancel, name="cancel"),
    path("account/<str:company_id>/withdraw/", plans.withdraw, name="withdraw"),
    path("account/<str:company_id>/invoices/", invoices.listed, name="invoices"),
    path("account/<str:company_id>/methods/", methods.listed, name="methods"),
    path("invoices/<str:number>/", invoices.invoice, name="invoice"),
    path("invoices/<str:number>/pay/", invoices.pay, name="pay"),
    path("invoices/<str:number>/ask/", invoices.ask, name="ask"),
    path("invoices/<str:number>/pdf/<str:language>/", invoices.pdf, name="pdf"),
    path("methods/<str:method_id>/remove/", methods.remove, name="remove_method"),
    path("methods/<str:method_id>/default/", methods.make_default, name="default_method"),
]
