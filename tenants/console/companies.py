"""Companies, their plans and their overrides in the admin. Room: tenants."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponseRedirect
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from tenants import access
from tenants.console.base import ScopedAdmin
from tenants.console.inlines import ScopedInline
from tenants.console.pages import Tool, confirm, is_confirmed
from tenants.console.places import Place, accounts_place, own_company, users_place
from tenants.console.scoping import actor_of
from tenants.models import Company, CompanyOverride, MT5Account, SubscriptionTier, limits_of


class ReasonForm(forms.Form):
    reason = forms.CharField(
        label=gettext_lazy("Reason"), max_length=200, help_text=gettext_lazy("The company's admins can read it.")
    )


class OverrideInline(ScopedInline):
    """Limits of one company alone; nobody's but the operator's."""

    model = CompanyOverride
    template = "admin/edit_inline/stacked.html"
    extra = 1
    fields = (
        ("user_limit", "company_account_limit"),
        ("user_account_limit", "pair_limit"),
        ("message_rate_limit", "connection_limit", "company_connection_limit"),
        ("monthly_data_limit", "monthly_api_call_limit", "refuses_over_quota"),
        ("has_signals", "has_alerts", "has_replay"),
        "note",
    )
    classes = ("collapse",)


@admin.register(Company)
class CompanyAdmin(ScopedAdmin):
    company_may = frozenset({"view"})
    list_display = ("name", "slug", "tier", "status", "paid_until", "user_count", "account_count", "created_at")
    list_filter = ("status", "tier")
    search_fields = ("name", "slug")
    search_help_text = gettext_lazy("Name or short name")
    list_select_related = ("tier",)
    ordering = ("name",)
    actions = ("suspend", "resume")
    inlines = (OverrideInline,)
    empty_text = gettext_lazy("No companies yet: add one, then its first user with the role company admin.")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        counts = {"users_held": Count("users", distinct=True), "accounts_held": Count("accounts", distinct=True)}
        rows: QuerySet[Any] = super().get_queryset(request).annotate(**counts)
        return rows

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        if not actor_of(request).sees_all:
            return ((None, {"fields": self.get_readonly_fields(request, obj)}),)
        names = ("name", "slug", "tier", "paid_until", "grace")
        if obj is None:
            return ((None, {"fields": names}),)
        return (
            (None, {"fields": (*names, "status", "status_reason")}),
            (gettext_lazy("Use of the plan"), {"fields": ("use", "plan")}),
            (None, {"fields": ("access_version", "created_at", "updated_at")}),
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        if not actor_of(request).sees_all:
            return ("name", "slug", "tier_name", "status", "status_reason", "paid_until", "use", "plan")
        # The status by the actions alone, which ask for a reason.
        return ("status", "status_reason", "use", "plan", "access_version", "created_at", "updated_at")

    def get_prepopulated_fields(self, request: HttpRequest, obj: Any = None) -> dict[str, Any]:
        return {"slug": ("name",)} if obj is None else {}

    def get_inlines(self, request: HttpRequest, obj: Any) -> Any:
        return self.inlines if actor_of(request).sees_all else ()

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        company = own_company(request)
        if company is not None and self.has_view_permission(request):
            # A list of one is no list.
            return HttpResponseRedirect(reverse("admin:tenants_company_change", args=[company.pk]))
        return super().changelist_view(request, extra_context)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> Any:
        own = {} if actor_of(request).sees_all else {"title": _("Your company")}
        return super().change_view(request, object_id, form_url, {**own, **(extra_context or {})})

    def object_tools(self, request: HttpRequest, obj: Any) -> list[Tool]:
        if not actor_of(request).sees_all:
            return []
        people = f"{reverse('admin:tenants_user_changelist')}?company__id__exact={obj.pk}"
        accounts = f"{reverse('admin:tenants_mt5account_changelist')}?company__id__exact={obj.pk}"
        return [Tool(people, _("Users")), Tool(accounts, _("MT5 accounts"))]

    def save_model(self, request: HttpRequest, obj: Company, form: Any, change: bool) -> None:
        actor = actor_of(request)
        access.save_row(actor, obj)
        if change and "paid_until" in form.changed_data and obj.status == Company.Status.UNPAID:
            # Paid again is welcome again.
            access.set_paid_until(actor, obj, obj.paid_until)

    @admin.display(description=gettext_lazy("subscription tier"))
    def tier_name(self, company: Company) -> str:
        # As text: a link would lead a company admin to a page that is not theirs.
        return company.tier.code

    @admin.display(description=gettext_lazy("users"), ordering="users_held")
    def user_count(self, company: Any) -> str:
        return f"{company.users_held} / {limits_of(company).user_limit}"

    @admin.display(description=gettext_lazy("MT5 accounts"), ordering="accounts_held")
    def account_count(self, company: Any) -> str:
        return f"{company.accounts_held} / {limits_of(company).company_account_limit}"

    @admin.display(description=gettext_lazy("in use"))
    def use(self, company: Company) -> SafeString:
        places: list[Place] = [users_place(company), accounts_place(company)]
        online = access.visible(access.Actor.system("console"), MT5Account).filter(company=company, is_online=True)
        context = {"places": places, "online": online.count()}
        return render_to_string("admin/tenants/company_use.html", context)

    @admin.display(description=gettext_lazy("limits of the plan"))
    def plan(self, company: Company) -> SafeString:
        limits = limits_of(company)
        yes_no = {True: _("yes"), False: _("no")}
        rows = [
            (_("MT5 accounts a user"), limits.user_account_limit),
            (_("active pairs a user"), limits.pair_limit),
            (_("messages a second a user"), f"{limits.message_rate_limit:g}"),
            (_("connections a user"), limits.connection_limit),
            (_("connections a company"), limits.company_connection_limit),
            (_("GB a month"), f"{limits.monthly_data_limit / 2**30:g}"),
            (_("API calls a month"), limits.monthly_api_call_limit),
            (_("trading signals"), yes_no[limits.has_signals]),
            (_("alerts and notifications"), yes_no[limits.has_alerts]),
            (_("replay of past data"), yes_no[limits.has_replay]),
        ]
        return render_to_string("admin/tenants/company_plan.html", {"rows": rows})

    @admin.action(description=gettext_lazy("Suspend the chosen companies…"), permissions=["change"])
    def suspend(self, request: HttpRequest, queryset: QuerySet[Company]) -> TemplateResponse | None:
        form = ReasonForm(request.POST if is_confirmed(request) else None)
        if not (is_confirmed(request) and form.is_valid()):
            return confirm(
                self,
                request,
                queryset,
                action="suspend",
                title=_("Suspend companies"),
                text=_("Nobody of these companies can connect until they are resumed; live connections end now."),
                button=_("Suspend"),
                form=form,
            )
        companies = list(queryset)
        for company in companies:
            access.set_company_status(actor_of(request), company, Company.Status.SUSPENDED, form.cleaned_data["reason"])
        text = ngettext("%(count)d company is suspended.", "%(count)d companies are suspended.", len(companies))
        self.message_user(request, text % {"count": len(companies)}, messages.SUCCESS)
        return None

    @admin.action(description=gettext_lazy("Resume the chosen companies"), permissions=["change"])
    def resume(self, request: HttpRequest, queryset: QuerySet[Company]) -> None:
        companies = list(queryset)
        for company in companies:
            access.set_company_status(actor_of(request), company, Company.Status.ACTIVE)
        text = ngettext("%(count)d company is active.", "%(count)d companies are active.", len(companies))
        self.message_user(request, text % {"count": len(companies)}, messages.SUCCESS)


@admin.register(SubscriptionTier)
class TierAdmin(ScopedAdmin):
    list_display = (
        "code",
        "user_limit",
        "company_account_limit",
        "user_account_limit",
        "pair_limit",
        "message_rate_limit",
        "connection_limit",
        "has_signals",
        "company_count",
    )
    search_fields = ("code",)
    ordering = ("code",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request).annotate(companies_held=Count("companies"))
        return rows

    @admin.display(description=gettext_lazy("companies"), ordering="companies_held")
    def company_count(self, tier: Any) -> int:
        return int(tier.companies_held)
