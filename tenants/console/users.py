"""People in the admin. Room: tenants."""

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.contrib.auth.hashers import make_password
from django.core.exceptions import PermissionDenied
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.debug import sensitive_post_parameters

from tenants import access
from tenants.console.accounts import AccountInline
from tenants.console.exports import csv_answer
from tenants.console.keys import KeyInline
from tenants.console.pages import Tool, page_context
from tenants.console.places import Place, accounts_place_of, company_of, own_company, pairs_place_of, users_place
from tenants.console.scoping import actor_of
from tenants.console.user_actions import PersonActions
from tenants.console.user_forms import NewPersonForm, PasswordForm, PersonForm
from tenants.models import User
from tenants.signin import devices

_ABOUT = ("first_name", "last_name", "email")
_LIMITS = ("may_send_signals", "message_rate_limit", "connection_limit")


@admin.register(User)
class PersonAdmin(PersonActions):
    company_may = frozenset({"view", "add", "change", "delete"})
    form = PersonForm
    list_display = ("username", "full_name", "company", "role", "state", "account_count", "pair_count", "last_login")
    list_filter = ("is_active", "role", "company")
    search_fields = ("username", "first_name", "last_name", "email", "company__name")
    search_help_text = gettext_lazy("Username, name or e-mail")
    date_hierarchy = "date_joined"
    list_select_related = ("company",)
    ordering = ("username",)
    linked_lookups = ("company__id__exact",)
    empty_text = gettext_lazy("No users yet: add one, and the invitation goes out by e-mail.")

    # --- Rows and fields ----------------------------------------------------------------------------------------------

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        counts = {
            "accounts_held": Count("accounts", distinct=True),
            "pairs_held": Count("active_pairs", distinct=True),
        }
        rows: QuerySet[Any] = super().get_queryset(request).annotate(**counts)
        return rows

    def get_search_results(self, request: HttpRequest, queryset: QuerySet[Any], search_term: str) -> Any:
        if request.GET.get("field_name") in ("owner", "user"):
            # Choosing whose an account, a pair or a key is: never an operator's.
            queryset = queryset.filter(company__isnull=False)
        return super().get_search_results(request, queryset, search_term)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        if obj is None:
            kwargs["form"] = NewPersonForm
        return super().get_form(request, obj, change=change, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        sees_all = actor_of(request).sees_all
        if obj is None:
            who: tuple[str, ...] = ("username", *(("role", "company") if sees_all else ()), *_ABOUT)
            return (
                (None, {"fields": who}),
                (gettext_lazy("What this user may do"), {"fields": ("pairs", *_LIMITS)}),
                (
                    gettext_lazy("Password"),
                    {
                        "fields": ("password1", "password2"),
                        "description": _("Leave it empty: the user gets an e-mail and chooses one."),
                    },
                ),
            )
        who = ("username", *(("role", "company") if sees_all else ("role",)), *_ABOUT)
        return (
            (None, {"fields": (*who, "is_active", "password_state", "two_factor")}),
            (gettext_lazy("What this user may do"), {"fields": ("pairs", *_LIMITS)}),
            (gettext_lazy("Important dates"), {"fields": ("last_login", "date_joined")}),
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        if obj is None:
            return ()
        fixed: tuple[str, ...] = ("password_state", "two_factor", "last_login", "date_joined")
        if not actor_of(request).sees_all:
            fixed += ("username", "role")
        elif obj.pk == request.user.pk:
            fixed += ("role", "company")
        # Nobody locks themselves out.
        return (*fixed, "is_active") if obj.pk == request.user.pk else fixed

    def get_inlines(self, request: HttpRequest, obj: Any) -> Any:
        return () if obj is None or obj.company_id is None else (AccountInline, KeyInline)

    def get_autocomplete_fields(self, request: HttpRequest) -> tuple[str, ...]:
        return ("company",) if actor_of(request).sees_all else ()

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        is_self = obj is not None and obj.pk == request.user.pk
        return not is_self and super().has_delete_permission(request, obj)

    @admin.display(description=gettext_lazy("name"), ordering="first_name")
    def full_name(self, user: User) -> str:
        return user.get_full_name()

    @admin.display(description=gettext_lazy("state"), ordering="is_active")
    def state(self, user: User) -> str:
        if not user.is_active:
            return _("disabled")
        return _("active") if user.has_usable_password() else _("invited")

    @admin.display(description=gettext_lazy("MT5 accounts"), ordering="accounts_held")
    def account_count(self, user: Any) -> SafeString | int:
        if not user.accounts_held:
            return 0
        url = reverse("admin:tenants_mt5account_changelist")
        return format_html('<a href="{}?owner__id__exact={}">{}</a>', url, user.pk, user.accounts_held)

    @admin.display(description=gettext_lazy("pairs"), ordering="pairs_held")
    def pair_count(self, user: Any) -> int:
        return int(user.pairs_held)

    @admin.display(description=gettext_lazy("password"))
    def password_state(self, user: User) -> SafeString:
        """Whether there is one; nothing of the hash."""
        has_one = user.has_usable_password()
        text = _("Set.") if has_one else _("None yet: the user is invited and chooses one.")
        return format_html(
            '{} <a href="{}">{}</a>', text, self._url("password", user.pk), _("Change it") if has_one else _("Set one")
        )

    @admin.display(description=gettext_lazy("two-factor sign-in"))
    def two_factor(self, user: User) -> str:
        return _("on") if devices.has_device(user) else _("off")

    # --- What is shown beside -----------------------------------------------------------------------------------------

    def places(self, request: HttpRequest, obj: Any = None) -> list[Place]:
        if obj is None:
            company = own_company(request)
            return [] if company is None else [users_place(company)]
        company = company_of(obj)
        return [] if company is None else [accounts_place_of(obj, company), pairs_place_of(obj, company)]

    def tools(self, request: HttpRequest) -> list[Tool]:
        return [Tool(self._url("export"), _("Export as CSV"))]

    def object_tools(self, request: HttpRequest, obj: Any) -> list[Tool]:
        if obj.company_id is None:
            return []
        return [
            Tool(f"{reverse('admin:tenants_apikey_add')}?user={obj.pk}", _("Issue an API key")),
            Tool(reverse("live:follow", args=[obj.pk]), _("Follow messages")),
            Tool(reverse("live:kick_user", args=[obj.pk]), _("End connections")),
        ]

    # --- Saving -------------------------------------------------------------------------------------------------------

    @method_decorator(sensitive_post_parameters())
    @method_decorator(csrf_protect)
    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None) -> Any:
        if request.method == "POST":
            # Before anybody waits for the company's lock: hashing is slow on purpose.
            password = request.POST.get("password1", "")
            request.hashed_password = make_password(password or None)  # type: ignore[attr-defined]
        answer = super().add_view(request, form_url, extra_context)
        invited: User | None = getattr(request, "invited", None)
        if invited is not None:
            self.invite(request, [invited])
        return answer

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        actor = actor_of(request)
        if actor.sees_all:
            # The flags go with the role; no form has them.
            obj.is_staff = obj.is_superuser = obj.role == User.Role.OPERATOR
        if not change:
            obj.password = request.hashed_password  # type: ignore[attr-defined]
        access.save_row(actor, obj)
        if change and "company" in form.changed_data:
            text = _(
                "%(name)s has moved: the password and the API keys of before do not work any more. "
                "Check the e-mail address, send the invitation again and issue new keys."
            )
            self.message_user(request, text % {"name": obj.username}, messages.WARNING)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        if "pairs" in form.cleaned_data and form.cleaned_data["pairs"] != form.held_pairs:
            access.set_pairs(actor_of(request), form.instance, form.cleaned_data["pairs"])

    def response_add(self, request: HttpRequest, obj: User, post_url_continue: str | None = None) -> HttpResponse:
        # All of it is saved by now: what is refused later than the person must not send a mail.
        if not obj.has_usable_password():
            request.invited = obj  # type: ignore[attr-defined]
        # On to the same person: accounts and keys come next.
        if "_addanother" not in request.POST and "_popup" not in request.POST:
            sent = request.POST.copy()
            sent["_continue"] = "1"
            request.POST = sent  # type: ignore[assignment]
        return super().response_add(request, obj, post_url_continue)

    # --- Pages of its own ---------------------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        own = [
            path("export/", self.admin_site.admin_view(self.export), name="tenants_user_export"),
            path("<id>/password/", self.admin_site.admin_view(self.change_password), name="tenants_user_password"),
        ]
        return [*own, *super().get_urls()]

    def _url(self, name: str, *args: Any) -> str:
        return reverse(f"admin:tenants_user_{name}", args=args)

    def export(self, request: HttpRequest) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        names = ["username", "first_name", "last_name", "email", "role", "is_active", "last_login"]
        if actor_of(request).sees_all:
            names.insert(1, "company__slug")
        header = [name.removeprefix("is_").removesuffix("__slug") for name in names]
        return csv_answer("users.csv", header, self.get_queryset(request).values_list(*names))

    @method_decorator(sensitive_post_parameters())
    @method_decorator(csrf_protect)
    def change_password(self, request: HttpRequest, id: str) -> HttpResponse:
        user = self.get_object(request, unquote(id))
        if user is None:
            return self.not_found(request)
        if not self.has_change_permission(request, user):
            raise PermissionDenied
        if user.pk == request.user.pk:
            # Their own needs the old one: a session left open is not enough.
            return HttpResponseRedirect(reverse("admin:password_change"))
        form = PasswordForm(user, request.POST if request.method == "POST" else None)
        if request.method == "POST" and form.is_valid():
            user.set_password(form.cleaned_data["password1"])
            access.save_row(actor_of(request), user, action="set_password")
            self.log_change(request, user, self.construct_change_message(request, form, []))
            text = _("The password of %(name)s is set; sessions with the old one have ended.")
            self.message_user(request, text % {"name": user.username}, messages.SUCCESS)
            return HttpResponseRedirect(self._url("change", user.pk))
        title = _("Password of %(name)s") % {"name": user.username}
        context = {**page_context(self, request, title), "form": form, "button": _("Set the password")}
        return TemplateResponse(request, "admin/tenants/form.html", context)
