"""Payment attempts, transactions and refunds, for operators; sending money back. Room: billing."""

from django import forms
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

from billing import books, refunds
from billing.console.read_only import BooksAdmin, company_column, money
from billing.models import PaymentAttempt, Refund, Transaction
from billing.money import rupiah
from billing.problems import BillingError
from billing.replay import replay_order
from billing.transitions import PaymentState
from tenants.pages import Tool, actor_of, page_context

_CANCELLED = frozenset({PaymentState.CAPTURED, PaymentState.CHALLENGED, PaymentState.AUTHORIZED})
_REFUNDED = frozenset({PaymentState.SETTLED, PaymentState.PARTIALLY_REFUNDED})


class RefundForm(forms.Form):
    amount = forms.IntegerField(label=gettext_lazy("Rupiah"), min_value=1)
    reason = forms.CharField(
        label=gettext_lazy("Reason"), max_length=200, help_text=gettext_lazy("Midtrans keeps it with the refund.")
    )


@admin.register(PaymentAttempt)
class AttemptAdmin(BooksAdmin):
    list_display = (
        "order_id",
        "invoice",
        company_column("invoice.subscription.company"),
        "by",
        "state",
        money("amount", gettext_lazy("amount")),
        "is_closed",
        "polls",
        "last_problem",
        "created_at",
    )
    list_filter = ("state", "by", "is_closed")
    search_fields = ("order_id", "invoice__number", "invoice__subscription__company__slug")
    search_help_text = gettext_lazy("Order id, invoice or company")
    list_select_related = ("invoice__subscription__company",)
    date_hierarchy = "created_at"
    fields = (
        "order_id", "invoice", "by", "state", "amount", "method", "is_closed", "last_problem", "polls", "next_poll_at",
        "page_expires_at", "created_at",
    )  # fmt: skip
    empty_text = gettext_lazy("Nobody has begun to pay yet.")

    def object_tools(self, request: HttpRequest, obj: PaymentAttempt) -> list[Tool]:
        payments = f"{reverse('admin:billing_transaction_changelist')}?q={obj.order_id}"
        receipts = f"{reverse('admin:billing_webhookreceipt_changelist')}?q={obj.order_id}"
        return [
            Tool(reverse("admin:billing_paymentattempt_look", args=[obj.pk]), _("Ask Midtrans now")),
            Tool(payments, _("Transactions")),
            Tool(receipts, _("Webhook receipts")),
        ]

    def get_urls(self) -> list[URLPattern]:
        look = path("<id>/look/", self.admin_site.admin_view(self.look), name="billing_paymentattempt_look")
        return [look, *super().get_urls()]

    @method_decorator(csrf_protect)
    def look(self, request: HttpRequest, id: str) -> HttpResponse:
        """Asks Midtrans and applies what it says, as the poller does."""
        row = self.get_object(request, unquote(id))
        if row is None or not self.has_view_permission(request, row):
            return self.not_found(request)
        if request.method != "POST":
            context = {
                **page_context(self, request, _("Ask Midtrans about %(order)s") % {"order": row.order_id}),
                "text": _("Midtrans is asked for the state, and what it says is applied."),
                "button": _("Ask Midtrans now"),
            }
            return TemplateResponse(request, "admin/tenants/ask.html", context)
        result = replay_order(row.order_id, actor=actor_of(request).name)
        self.message_user(request, _("Midtrans was asked: %(result)s") % {"result": result}, messages.INFO)
        return HttpResponseRedirect(reverse("admin:billing_paymentattempt_change", args=[row.pk]))


@admin.register(Transaction)
class TransactionAdmin(BooksAdmin):
    list_display = (
        "transaction_id",
        "order",
        company_column("attempt.invoice.subscription.company"),
        "payment_type",
        "state",
        "needs_review",
        money("refunded", gettext_lazy("refunded")),
        "settled_at",
    )
    list_filter = ("needs_review", "state", "payment_type")
    search_fields = ("transaction_id", "attempt__order_id", "attempt__invoice__number")
    search_help_text = gettext_lazy("Transaction, order id or invoice")
    list_select_related = ("attempt__invoice__subscription__company",)
    fields = (
        "transaction_id", "attempt", "payment_type", "state", "refunded", "needs_review", "settled_at", "created_at",
        "updated_at", "details",
    )  # fmt: skip
    actions = ("reviewed",)
    empty_text = gettext_lazy("Nobody has chosen how to pay yet.")

    @admin.display(description=gettext_lazy("order id"), ordering="attempt__order_id")
    def order(self, row: Transaction) -> str:
        return row.attempt.order_id

    def tools(self, request: HttpRequest) -> list[Tool]:
        return [Tool("?needs_review__exact=1", _("To be looked at"))]

    def object_tools(self, request: HttpRequest, obj: Transaction) -> list[Tool]:
        if obj.state in _CANCELLED:
            return [Tool(reverse("admin:billing_transaction_cancel", args=[obj.pk]), _("Cancel"))]
        if obj.state in _REFUNDED:
            return [Tool(reverse("admin:billing_transaction_refund", args=[obj.pk]), _("Refund"))]
        return []

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        own = [
            path("<id>/refund/", view(self.refund), name="billing_transaction_refund"),
            path("<id>/cancel/", view(self.cancel), name="billing_transaction_cancel"),
        ]
        return [*own, *super().get_urls()]

    def has_review_permission(self, request: HttpRequest) -> bool:
        return actor_of(request).sees_all

    @admin.action(description=gettext_lazy("I have looked at the chosen ones"), permissions=["review"])
    def reviewed(self, request: HttpRequest, queryset: QuerySet[Transaction]) -> None:
        rows = list(queryset.filter(needs_review=True).select_related("attempt__invoice__subscription"))
        for row in rows:
            Transaction.objects.filter(pk=row.pk).update(needs_review=False)
            books.entry(
                "reviewed", actor=actor_of(request).name, attempt=row.attempt, transaction_id=row.transaction_id
            )
        text = ngettext("%(count)d transaction is marked.", "%(count)d transactions are marked.", len(rows))
        self.message_user(request, text % {"count": len(rows)}, messages.SUCCESS)

    @method_decorator(csrf_protect)
    def refund(self, request: HttpRequest, id: str) -> HttpResponse:
        row = self.get_object(request, unquote(id))
        if row is None or not self.has_view_permission(request, row):
            return self.not_found(request)
        left = row.attempt.amount - row.refunded
        form = RefundForm(request.POST if request.method == "POST" else None, initial={"amount": left})
        if request.method == "POST" and form.is_valid():
            return self._send_back(request, row, form)
        title = _("Refund %(amount)s or a part of it") % {"amount": rupiah(left)}
        context = {**page_context(self, request, title), "form": form, "button": _("Send the money back")}
        return TemplateResponse(request, "admin/tenants/form.html", context)

    def _send_back(self, request: HttpRequest, row: Transaction, form: RefundForm) -> HttpResponse:
        back = HttpResponseRedirect(reverse("admin:billing_transaction_change", args=[row.pk]))
        amount, reason = form.cleaned_data["amount"], form.cleaned_data["reason"]
        try:
            made = refunds.refund(actor_of(request), row, amount=amount, reason=reason)
        except BillingError as error:
            self.message_user(request, str(error), messages.ERROR)
            return back
        texts = {
            Refund.State.DONE: (_("%(amount)s are sent back."), messages.SUCCESS),
            Refund.State.REFUSED: (_("Midtrans refuses the refund: %(problem)s"), messages.ERROR),
            Refund.State.ASKED: (
                _("Midtrans does not answer: the refund is written down, and it is asked again by itself."),
                messages.WARNING,
            ),
        }
        text, level = texts[Refund.State(made.state)]
        self.message_user(request, text % {"amount": rupiah(made.amount), "problem": made.problem}, level)
        return back

    @method_decorator(csrf_protect)
    def cancel(self, request: HttpRequest, id: str) -> HttpResponse:
        row = self.get_object(request, unquote(id))
        if row is None or not self.has_view_permission(request, row):
            return self.not_found(request)
        if request.method != "POST":
            context = {
                **page_context(self, request, _("Cancel the payment %(order)s") % {"order": row.attempt.order_id}),
                "text": _("The card is not charged. Access that was given for it ends now."),
                "button": _("Cancel the payment"),
            }
            return TemplateResponse(request, "admin/tenants/ask.html", context)
        try:
            refunds.cancel_capture(actor_of(request), row)
            self.message_user(request, _("The payment is cancelled."), messages.SUCCESS)
        except BillingError as error:
            self.message_user(request, str(error), messages.ERROR)
        return HttpResponseRedirect(reverse("admin:billing_transaction_change", args=[row.pk]))


@admin.register(Refund)
class RefundAdmin(BooksAdmin):
    list_display = (
        "refund_key",
        "transaction",
        company_column("transaction.attempt.invoice.subscription.company"),
        money("amount", gettext_lazy("amount")),
        "state",
        "problem",
        "asked_by",
        "created_at",
    )
    list_filter = ("state",)
    search_fields = ("refund_key", "transaction__transaction_id", "transaction__attempt__order_id")
    list_select_related = ("transaction__attempt__invoice__subscription__company",)
    fields = ("refund_key", "transaction", "amount", "reason", "state", "problem", "asked_by", "created_at")
    empty_text = gettext_lazy("No refunds. They begin on the page of a transaction.")
