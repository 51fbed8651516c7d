"""Time that is paid or given, for operators: giving some in one's own name, and taking it back. Room: billing."""

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from billing import clock, entitlements
from billing.console.read_only import OperatorsAdmin
from billing.models import AccessGrant
from tenants.pages import actor_of, confirm, is_confirmed

_LENGTH = timedelta(days=30)


class BecauseForm(forms.Form):
    because = forms.CharField(label=gettext_lazy("Because"), max_length=80)


@admin.register(AccessGrant)
class GrantAdmin(OperatorsAdmin):
    operator_may = frozenset({"view", "add"})
    list_display = ("company", "plan", "starts_at", "ends_at", "invoice", "given_by", "state")
    list_filter = ("plan",)
    search_fields = ("company__name", "company__slug", "invoice__number", "given_by")
    search_help_text = gettext_lazy("Company, invoice or who gave it")
    list_select_related = ("company", "plan", "invoice")
    date_hierarchy = "ends_at"
    actions = ("revoke",)
    empty_text = gettext_lazy("Nothing was paid or given yet.")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        if obj is None:
            return ("company", "plan", "starts_at", "ends_at")
        return (
            *("company", "plan", "starts_at", "ends_at", "invoice", "given_by"),
            *("state", "revoked_at", "revoked_because", "created_at"),
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return () if obj is None else self.get_fields(request, obj)

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        now = clock.now().replace(second=0, microsecond=0)
        return {"starts_at": now, "ends_at": now + _LENGTH, **super().get_changeform_initial_data(request)}

    @admin.display(description=gettext_lazy("state"))
    def state(self, grant: AccessGrant) -> str:
        now = clock.now()
        if grant.revoked_at is not None:
            return _("taken back")
        if grant.ends_at <= now:
            return _("over")
        return _("running") if grant.starts_at <= now else _("to come")

    def save_model(self, request: HttpRequest, obj: AccessGrant, form: Any, change: bool) -> None:
        if change:
            raise PermissionDenied
        if obj.ends_at <= clock.now():
            raise ValidationError(_("This time is over already: choose a later end."))
        name = actor_of(request).name
        row = entitlements.grant(obj.company_id, obj.plan, obj.starts_at, obj.ends_at, given_by=name, actor=name)
        obj.pk = row.pk

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return actor_of(request).sees_all

    @admin.action(description=gettext_lazy("Take the chosen time back…"), permissions=["revoke"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[AccessGrant]) -> TemplateResponse | None:
        form = BecauseForm(request.POST if is_confirmed(request) else None)
        rows = queryset.filter(revoked_at__isnull=True)
        if not (is_confirmed(request) and form.is_valid()):
            return confirm(
                self,
                request,
                rows,
                action="revoke",
                title=_("Take time back"),
                text=_(
                    "The access that it gives ends now. This sends no money back: refund the transaction for that. "
                    "Whoever has no other time left is cut off within seconds."
                ),
                button=_("Take back"),
                form=form,
            )
        chosen = list(rows)
        for row in chosen:
            entitlements.revoke(row, because=form.cleaned_data["because"], actor=actor_of(request).name)
        text = ngettext("%(count)d grant is taken back.", "%(count)d grants are taken back.", len(chosen))
        self.message_user(request, text % {"count": len(chosen)}, messages.SUCCESS)
        return None
