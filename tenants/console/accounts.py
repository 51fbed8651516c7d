"""MT5 accounts in the admin. Room: tenants."""

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import NON_FIELD_ERRORS, PermissionDenied
from django.db.models import Case, F, QuerySet, Value, When
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.csrf import csrf_protect

from tenants import access
from tenants.console import csv_import
from tenants.console.base import ScopedAdmin
from tenants.console.exports import csv_answer
from tenants.console.inlines import ScopedInline
from tenants.console.pages import Tool
from tenants.console.places import Place, accounts_place, accounts_place_of, company_of, own_company
from tenants.console.scoping import ScopedForm, ScopedRelatedFilter, actor_of, choices_of
from tenants.models import MT5Account, User


class AccountForm(ScopedForm):
    class Meta:
        error_messages = {  # noqa: RUF012
            NON_FIELD_ERRORS: {"unique_together": gettext_lazy("This MT5 account is registered already.")},
        }

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        owner = cleaned.get("owner")
        if owner is not None and self.instance._state.adding:
            # The owner says which company it is; to an operator's form too.
            self.instance.company = company_of(owner)
        return cleaned


class _Seen:
    """A column for people: ``last_seen_at`` is not written while an account stays online."""

    @admin.display(description=gettext_lazy("last seen"), ordering="last_seen_at")
    def last_seen(self, account: MT5Account) -> Any:
        return _("now") if account.is_online else account.last_seen_at


class AccountInline(_Seen, ScopedInline):
    model = MT5Account
    form = AccountForm
    fields = ("login", "broker_server", "is_active", "is_online", "last_seen")
    readonly_fields = ("is_online", "last_seen")
    company_may = frozenset({"view", "add", "change", "delete"})
    show_change_link = True


@admin.register(MT5Account)
class AccountAdmin(_Seen, ScopedAdmin):
    company_may = frozenset({"view", "add", "change", "delete"})
    form = AccountForm
    list_display = ("login", "broker_server", "company", "owner", "is_active", "is_online", "last_seen")
    list_filter = ("is_active", "is_online", ("owner", ScopedRelatedFilter), "broker_server", "company")
    search_fields = ("^login", "broker_server", "owner__username", "company__name")
    search_help_text = gettext_lazy("Login, broker server or owner")
    list_select_related = ("company", "owner")
    actions = ("enable", "disable")
    linked_lookups = ("owner__id__exact", "company__id__exact")
    empty_text = gettext_lazy("No MT5 accounts yet: add one or import a CSV.")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        if obj is None:
            return ("login", "broker_server", "owner", "is_active")
        company = ("company",) if actor_of(request).sees_all else ()
        return ("login", "broker_server", "owner", *company, "is_active", "is_online", "last_seen", "created_at")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return () if obj is None else ("company", "is_online", "last_seen", "created_at")

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change=change, **kwargs)
        owner = form.base_fields.get("owner")
        if owner is not None:
            people = choices_of(actor_of(request), User)
            # An account stays in its company.
            people = people.filter(company__isnull=False) if obj is None else people.filter(company=obj.company_id)
            owner.queryset = people
        return form

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        initial: dict[str, Any] = super().get_changeform_initial_data(request)
        people = list(
            choices_of(actor_of(request), User).filter(company__isnull=False).values_list("pk", flat=True)[:2]
        )
        # Whoever is alone registers for themselves.
        return initial if len(people) != 1 else {"owner": people[0], **initial}

    def object_tools(self, request: HttpRequest, obj: Any) -> list[Tool]:
        return [Tool(f"{reverse('admin:tenants_apikey_add')}?account={obj.pk}", _("Issue an API key"))]

    def get_autocomplete_fields(self, request: HttpRequest) -> tuple[str, ...]:
        return ("owner",) if actor_of(request).sees_all else ()

    def places(self, request: HttpRequest, obj: Any = None) -> list[Place]:
        if obj is not None:
            company = company_of(obj.owner)
            return [] if company is None else [accounts_place_of(obj.owner, company)]
        company = own_company(request)
        return [] if company is None else [accounts_place(company)]

    def tools(self, request: HttpRequest) -> list[Tool]:
        return [
            Tool(reverse("admin:tenants_mt5account_import"), _("Import a CSV")),
            Tool(reverse("admin:tenants_mt5account_export"), _("Export as CSV")),
        ]

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        own = [
            path("import/", view(self.import_csv), name="tenants_mt5account_import"),
            path("import/sample/", view(self.sample), name="tenants_mt5account_sample"),
            path("export/", view(self.export), name="tenants_mt5account_export"),
        ]
        return [*own, *super().get_urls()]

    @method_decorator(csrf_protect)
    def import_csv(self, request: HttpRequest) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied
        return csv_import.import_page(self, request)

    def sample(self, request: HttpRequest) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied
        return csv_import.sample_file(actor_of(request))

    def export(self, request: HttpRequest) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        names = ["login", "broker_server", "owner__username", "is_active", "is_online", "seen"]
        header = ["login", "broker_server", "owner", "active", "online", "last_seen"]
        if actor_of(request).sees_all:
            names.append("company__slug")
            header.append("company")
        rows = self.get_queryset(request).annotate(
            seen=Case(When(is_online=True, then=Value(timezone.now())), default=F("last_seen_at"))
        )
        return csv_answer("mt5-accounts.csv", header, rows.values_list(*names))

    @admin.action(description=gettext_lazy("Enable the chosen accounts"), permissions=["change"])
    def enable(self, request: HttpRequest, queryset: QuerySet[MT5Account]) -> None:
        count = self._set_active(request, queryset, is_active=True)
        text = ngettext("%(count)d account is enabled.", "%(count)d accounts are enabled.", count)
        self.message_user(request, text % {"count": count}, messages.SUCCESS)

    @admin.action(description=gettext_lazy("Disable the chosen accounts"), permissions=["change"])
    def disable(self, request: HttpRequest, queryset: QuerySet[MT5Account]) -> None:
        count = self._set_active(request, queryset, is_active=False)
        text = ngettext(
            "%(count)d account is disabled; its data is refused within seconds.",
            "%(count)d accounts are disabled; their data is refused within seconds.",
            count,
        )
        self.message_user(request, text % {"count": count}, messages.SUCCESS)

    def _set_active(self, request: HttpRequest, rows: QuerySet[MT5Account], *, is_active: bool) -> int:
        changed = list(rows.exclude(is_active=is_active))
        for row in changed:
            row.is_active = is_active
            access.save_row(actor_of(request), row, action="enable" if is_active else "disable")
        return len(changed)
