"""Plans, prices, subscriptions, invoices and kept payment methods, for operators. Room: billing."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from billing import books
from billing.console.read_only import BooksAdmin, OperatorsAdmin, company_column, money
from billing.models import Invoice, PaymentMethod, Plan, Price, Subscription
from billing.money import rupiah
from tenants.pages import Tool, actor_of


@admin.register(Plan)
class PlanAdmin(OperatorsAdmin):
    """What is offered; the limits are those of the tier."""

    operator_may = frozenset({"view", "change"})
    list_display = ("name", "tier", "rank", "is_public", "offered")
    fields = ("name", "is_public", "tier", "rank")
    readonly_fields = ("tier", "rank")
    ordering = ("rank",)

    @admin.display(description=gettext_lazy("prices"))
    def offered(self, plan: Plan) -> str:
        active = plan.prices.filter(is_active=True)
        return ", ".join(f"{rupiah(price.amount)} {price.interval}" for price in active) or "–"

    def save_model(self, request: HttpRequest, obj: Plan, form: Any, change: bool) -> None:
        obj.save()
        offered = "offered" if obj.is_public else "not offered"
        books.entry("plan_changed", actor=actor_of(request).name, after=obj.name, note=offered)


@admin.register(Price)
class PriceAdmin(OperatorsAdmin):
    """A new price is a new row: what somebody has agreed to stays as it was."""

    operator_may = frozenset({"view", "add", "change"})
    list_display = ("plan", "interval", money("amount", gettext_lazy("rupiah, tax included")), "is_active")
    list_filter = ("is_active", "plan")
    list_select_related = ("plan",)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("plan", "interval", "amount", "is_active")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return () if obj is None else ("plan", "interval", "amount")

    def save_model(self, request: HttpRequest, obj: Price, form: Any, change: bool) -> None:
        obj.save()
        kind = "price_changed" if change else "price_added"
        offered = "offered" if obj.is_active else "not offered"
        books.entry(kind, actor=actor_of(request).name, after=str(obj), amount=obj.amount, note=offered)


@admin.register(Subscription)
class SubscriptionAdmin(BooksAdmin):
    list_display = ("company", "state", "price", "paid_until", "method", "next_price", "next_retry_at")
    list_filter = ("state", "price__plan")
    search_fields = ("company__name", "company__slug")
    search_help_text = gettext_lazy("Company")
    list_select_related = ("company", "price__plan", "next_price__plan", "method")
    date_hierarchy = "paid_until"
    fields = (
        "company", "state", "state_since", "price", "next_price", "anchor_day", "period_start", "paid_until", "method",
        "first_failure_at", "next_retry_at", "reminders_sent",
    )  # fmt: skip
    empty_text = gettext_lazy("No company has been to its page of plans yet.")

    def object_tools(self, request: HttpRequest, obj: Subscription) -> list[Tool]:
        company = obj.company_id
        invoices = f"{reverse('admin:billing_invoice_changelist')}?q={obj.company.slug}"
        give = f"{reverse('admin:billing_accessgrant_add')}?company={company}"
        return [
            Tool(reverse("billing:company", args=[company]), _("The company's page")),
            Tool(invoices, _("Invoices")),
            Tool(give, _("Give time")),
        ]


@admin.register(Invoice)
class InvoiceAdmin(BooksAdmin):
    list_display = (
        "number",
        company_column("subscription.company"),
        "kind",
        "state",
        money("total", gettext_lazy("total")),
        "due_at",
        "paid_at",
    )
    list_filter = ("state", "kind", "price__plan")
    search_fields = ("number", "subscription__company__name", "subscription__company__slug")
    search_help_text = gettext_lazy("Number or company")
    list_select_related = ("subscription__company",)
    date_hierarchy = "created_at"
    fields = (
        "number", "subscription", "kind", "state", "price", "description", "period_start", "period_end", "net", "tax",
        "tax_rate", "total", "returned", "due_at", "created_at", "paid_at",
    )  # fmt: skip
    empty_text = gettext_lazy("No invoices yet.")

    def object_tools(self, request: HttpRequest, obj: Invoice) -> list[Tool]:
        attempts = f"{reverse('admin:billing_paymentattempt_changelist')}?q={obj.number}"
        log = f"{reverse('admin:billing_billingentry_changelist')}?q={obj.number}"
        return [
            Tool(reverse("billing:invoice", args=[obj.number]), _("The company's page")),
            Tool(attempts, _("Payment attempts")),
            Tool(log, _("Billing log")),
        ]


@admin.register(PaymentMethod)
class MethodAdmin(BooksAdmin):
    """Without what charges it."""

    list_display = ("company", "kind", "label", "expires_at", "refused_at", "created_at", "removed_at")
    list_filter = ("kind",)
    search_fields = ("company__name", "company__slug", "label")
    list_select_related = ("company",)
    fields = ("company", "kind", "label", "expires_at", "refused_at", "created_at", "removed_at")
    empty_text = gettext_lazy("Nobody has paid by card or GoPay yet.")
