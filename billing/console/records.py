"""What came in and what was done, for operators: webhook receipts and the billing log. Room: billing."""

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.csrf import csrf_protect

from billing.console.read_only import BooksAdmin, money
from billing.models import BillingEntry, WebhookReceipt
from billing.replay import replay_receipt
from tenants.pages import Tool, actor_of, page_context

# Each asks Midtrans; the page waits for all of them.
_REPLAY_LIMIT = 20


@admin.register(WebhookReceipt)
class ReceiptAdmin(BooksAdmin):
    list_display = ("received_at", "source", "order_id", "verdict", "reason", "tries", "address", "processed_at")
    list_filter = ("verdict", "source")
    search_fields = ("order_id", "address", "body_sha256")
    search_help_text = gettext_lazy("Order id or address")
    date_hierarchy = "received_at"
    fields = (
        "received_at", "source", "address", "order_id", "event_key", "verdict", "reason", "tries", "next_try_at",
        "processed_at", "body_sha256", "body",
    )  # fmt: skip
    actions = ("reprocess",)
    empty_text = gettext_lazy("Midtrans has told nothing yet: is its notification address set to this gateway?")

    def tools(self, request: HttpRequest) -> list[Tool]:
        return [
            Tool("?verdict__exact=refused", _("Refused signatures")),
            Tool("?verdict__exact=failed", _("Failed")),
            Tool("?verdict__exact=waiting", _("Waiting")),
            Tool(
                f"{reverse('admin:billing_billingentry_changelist')}?kind__exact=found_by_poll",
                _("Found by the poller alone"),
            ),
        ]

    def object_tools(self, request: HttpRequest, obj: WebhookReceipt) -> list[Tool]:
        log = f"{reverse('admin:billing_billingentry_changelist')}?q={obj.order_id}"
        tools = [Tool(reverse("admin:billing_webhookreceipt_replay", args=[obj.pk]), _("Reprocess"))]
        return [*tools, Tool(log, _("Billing log"))] if obj.order_id else tools

    def get_urls(self) -> list[URLPattern]:
        replay = path("<id>/replay/", self.admin_site.admin_view(self.replay), name="billing_webhookreceipt_replay")
        return [replay, *super().get_urls()]

    @method_decorator(csrf_protect)
    def replay(self, request: HttpRequest, id: str) -> HttpResponse:
        row = self.get_object(request, unquote(id))
        if row is None or not self.has_view_permission(request, row):
            return self.not_found(request)
        if request.method != "POST":
            text = _(
                "What the message said is not applied: Midtrans is asked for the state of the order, and that is. "
                "Doing it twice does no harm."
            )
            context = {
                **page_context(self, request, _("Reprocess a receipt")),
                "text": text,
                "button": _("Reprocess"),
            }
            return TemplateResponse(request, "admin/tenants/ask.html", context)
        result = replay_receipt(row.pk, actor=actor_of(request).name)
        self.message_user(request, _("Reprocessed: %(result)s") % {"result": result}, messages.INFO)
        return HttpResponseRedirect(reverse("admin:billing_webhookreceipt_change", args=[row.pk]))

    def has_replay_permission(self, request: HttpRequest) -> bool:
        return actor_of(request).sees_all

    def response_action(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:  # type: ignore[override]  # Django 5.2 has no action_location
        # Without the transaction around it: nothing is held while Midtrans is asked, and each receipt counts by itself.
        return admin.ModelAdmin.response_action(self, request, queryset)

    @admin.action(description=gettext_lazy("Reprocess the chosen receipts"), permissions=["replay"])
    def reprocess(self, request: HttpRequest, queryset: QuerySet[WebhookReceipt]) -> None:
        chosen = list(queryset.order_by("pk").values_list("pk", flat=True)[: _REPLAY_LIMIT + 1])
        for pk in chosen[:_REPLAY_LIMIT]:
            replay_receipt(pk, actor=actor_of(request).name)
        count = min(len(chosen), _REPLAY_LIMIT)
        text = ngettext("%(count)d receipt is reprocessed.", "%(count)d receipts are reprocessed.", count)
        self.message_user(request, text % {"count": count}, messages.SUCCESS)
        if len(chosen) > _REPLAY_LIMIT:
            more = _("Not more than %(count)d at once: for all of them use the command billing_replay.")
            self.message_user(request, more % {"count": _REPLAY_LIMIT}, messages.WARNING)


class KindFilter(admin.SimpleListFilter):
    """By the kinds that are there."""

    title = gettext_lazy("kind")
    parameter_name = "kind__exact"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        kinds = BillingEntry.objects.order_by("kind").values_list("kind", flat=True).distinct()
        return [(kind, kind.replace("_", " ")) for kind in kinds]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(kind=self.value()) if self.value() else queryset


@admin.register(BillingEntry)
class EntryAdmin(BooksAdmin):
    list_display = (
        "at",
        "actor",
        "kind",
        "invoice_number",
        "order_id",
        "before",
        "after",
        money("amount", gettext_lazy("rupiah")),
        "note",
    )
    list_display_links = ("at",)
    list_filter = (KindFilter,)
    search_fields = ("invoice_number", "order_id", "transaction_id", "actor", "=company_id")
    search_help_text = gettext_lazy("Invoice, order id, transaction, company id or who")
    date_hierarchy = "at"
    fields = (
        "at", "actor", "kind", "company_id", "invoice_number", "order_id", "transaction_id", "receipt_id", "before",
        "after", "amount", "note",
    )  # fmt: skip

    def tools(self, request: HttpRequest) -> list[Tool]:
        return [Tool("?kind__exact=found_by_poll", _("Found by the poller alone"))]
