"""API keys in the admin: issued, rotated, revoked; each shown once and never again. Room: tenants."""

from typing import Any

from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.csrf import csrf_protect

from tenants import access
from tenants.access import NotVisible
from tenants.api_keys import ROTATION_OVERLAP
from tenants.console.base import ScopedAdmin
from tenants.console.inlines import ScopedInline
from tenants.console.pages import Tool, confirm, is_confirmed, page_context
from tenants.console.scoping import ScopedForm, ScopedRelatedFilter, actor_of
from tenants.models import ApiKey


def state_of(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return _("revoked")
    if key.expires_at is not None and key.expires_at <= timezone.now():
        return _("expired")
    return _("replaced, ends soon") if key.replaced_by_id is not None else _("in use")


def terminal_address(request: HttpRequest) -> str:
    """Where terminals connect; http becomes ws, https becomes wss."""
    base = settings.GATEWAY_PUBLIC_URL or request.build_absolute_uri("/").rstrip("/")
    return str(base).replace("http", "ws", 1) + "/ws/mt5"


class KeyForm(ScopedForm):
    def clean_expires_at(self) -> Any:
        moment = self.cleaned_data["expires_at"]
        if moment is not None and moment <= timezone.now():
            raise ValidationError(_("This is over already: choose a later time, or leave it empty."))
        return moment


class KeyInline(ScopedInline):
    model = ApiKey
    operator_may = company_may = frozenset({"view"})
    fields = readonly_fields = ("prefix", "name", "scope", "state", "last_used_at", "expires_at")
    can_delete = False
    show_change_link = True

    @admin.display(description=gettext_lazy("state"))
    def state(self, key: ApiKey) -> str:
        return state_of(key)


@admin.register(ApiKey)
class KeyAdmin(ScopedAdmin):
    # A key is never changed or deleted: its row says who had it until when.
    operator_may = company_may = frozenset({"view", "add"})
    form = KeyForm
    list_display = ("prefix", "name", "user", "company", "scope", "state", "created_at", "last_used_at", "expires_at")
    list_filter = ("scope", ("user", ScopedRelatedFilter))
    search_fields = ("prefix", "name", "user__username", "user__company__name")
    search_help_text = gettext_lazy("Beginning of the key, name or user")
    date_hierarchy = "created_at"
    list_select_related = ("user__company",)
    actions = ("revoke",)
    linked_lookups = ("user__id__exact",)
    empty_text = gettext_lazy("No API keys yet: issue one for each terminal, so that each can be revoked by itself.")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        if obj is None:
            return ("user", "name", "scope", "expires_at")
        return ("prefix", "user", "name", "scope", "state", "created_at", "last_used_at", "expires_at", "revoked_at")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return () if obj is None else self.get_fields(request, obj)

    def get_exclude(self, request: HttpRequest, obj: Any = None) -> Any:
        # Nothing here is written by save_row: the door has functions of its own for keys.
        return None

    def get_autocomplete_fields(self, request: HttpRequest) -> tuple[str, ...]:
        return ("user",) if actor_of(request).sees_all else ()

    def choices(self, request: HttpRequest, db_field: Any) -> QuerySet[Any]:
        return super().choices(request, db_field).filter(company__isnull=False)

    @admin.display(description=gettext_lazy("company"), ordering="user__company__name")
    def company(self, key: ApiKey) -> str:
        return str(key.user.company)

    @admin.display(description=gettext_lazy("state"))
    def state(self, key: ApiKey) -> str:
        return state_of(key)

    def object_tools(self, request: HttpRequest, obj: Any) -> list[Tool]:
        if obj.revoked_at is not None or obj.replaced_by_id is not None:
            return []
        return [Tool(reverse("admin:tenants_apikey_rotate", args=[obj.pk]), _("Rotate"))]

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None) -> Any:
        # The answer shows the key, whichever button was pressed: one is enough.
        one_button = {"show_save_and_add_another": False, "show_save_and_continue": False}
        return super().add_view(request, form_url, {**one_button, **(extra_context or {})})

    # --- Issuing and rotating -----------------------------------------------------------------------------------------

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        if change:
            raise PermissionDenied
        key, row = access.create_api_key(
            actor_of(request), obj.user, obj.name, scope=obj.scope, expires_at=obj.expires_at
        )
        # The admin's log and its answer name the key by these.
        obj.pk, obj.prefix = row.pk, row.prefix
        request.issued_key = key  # type: ignore[attr-defined]

    def response_add(self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None) -> HttpResponse:
        return self._show_once(request, request.issued_key, obj)  # type: ignore[attr-defined]

    def _show_once(self, request: HttpRequest, key: str, row: ApiKey, replaced: ApiKey | None = None) -> HttpResponse:
        """The answer to the very request that made the key: it is kept nowhere, so it cannot be shown again."""
        context = {
            **page_context(self, request, _("Your new API key")),
            "key": key,
            "row": row,
            "replaced": replaced,
            "address": terminal_address(request),
        }
        answer = TemplateResponse(request, "admin/tenants/new_key.html", context)
        answer["Cache-Control"] = "no-store"
        return answer

    def get_urls(self) -> list[URLPattern]:
        rotate = path("<id>/rotate/", self.admin_site.admin_view(self.rotate), name="tenants_apikey_rotate")
        return [rotate, *super().get_urls()]

    @method_decorator(csrf_protect)
    def rotate(self, request: HttpRequest, id: str) -> HttpResponse:
        old = self.get_object(request, unquote(id))
        if old is None:
            return self.not_found(request)
        if not self.has_add_permission(request):
            raise PermissionDenied
        if old.revoked_at is not None or old.replaced_by_id is not None:
            return self._not_rotated(request, old)
        hours = round(ROTATION_OVERLAP.total_seconds() / 3_600)
        if request.method != "POST":
            text = _(
                "A new key with the same name takes the place of %(key)s, which goes on working for %(hours)d hours: "
                "enter the new one at the terminal in that time."
            )
            context = {
                **page_context(self, request, _("Rotate an API key")),
                "text": text % {"key": old, "hours": hours},
                "button": _("Rotate"),
            }
            return TemplateResponse(request, "admin/tenants/ask.html", context)
        try:
            key, row = access.rotate_api_key(actor_of(request), old)
        except NotVisible:
            # Somebody else was faster.
            return self._not_rotated(request, old)
        self.log_addition(request, row, [{"added": {}}])
        return self._show_once(request, key, row, replaced=old)

    def _not_rotated(self, request: HttpRequest, key: ApiKey) -> HttpResponse:
        self.message_user(request, _("This key has been revoked or replaced: issue a new one."), messages.WARNING)
        return HttpResponseRedirect(reverse("admin:tenants_apikey_change", args=[key.pk]))

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return self.may(request, "add")

    @admin.action(description=gettext_lazy("Revoke the chosen keys"), permissions=["revoke"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> TemplateResponse | None:
        if not is_confirmed(request):
            return confirm(
                self,
                request,
                queryset,
                action="revoke",
                title=_("Revoke API keys"),
                text=_("Terminals that use these keys are cut off within seconds and cannot come back with them."),
                button=_("Revoke"),
            )
        count = access.revoke_api_keys(actor_of(request), queryset)
        text = ngettext("%(count)d key is revoked.", "%(count)d keys are revoked.", count)
        self.message_user(request, text % {"count": count}, messages.SUCCESS)
        return None
