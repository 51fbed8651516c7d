"""The one admin, for operators and company admins. Room: tenants.

Who is let in is decided by role and by the second factor alone: flags set by mistake open nothing.
"""

from typing import Any

from django.contrib.admin import AdminSite
from django.contrib.auth.views import LogoutView
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, URLResolver, path, reverse_lazy
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect

from tenants import audit
from tenants.console.scoping import actor_of
from tenants.models import User
from tenants.signin import lockout, steps, views


class ConsoleSite(AdminSite):
    site_header = site_title = gettext_lazy("Trading gateway")
    site_url = None

    def has_permission(self, request: HttpRequest) -> bool:
        return steps.may_enter(request)

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        return super().index(request, {"title": _index_title(request), **(extra_context or {})})

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return views.sign_in(request)

    def password_change(  # type: ignore[override]  # the stubs know one kind of answer only
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        name = request.user.get_username()
        if lockout.is_locked_out(request, name):
            return lockout.locked_out(request, None, {"username": name})
        with transaction.atomic():
            answer = super().password_change(request, extra_context)
            if isinstance(request.user, User) and isinstance(answer, HttpResponseRedirect):
                audit.record(actor_of(request), "password_changed", request.user, company_id=request.user.company_id)
        form = (getattr(answer, "context_data", None) or {}).get("form")
        # The old password could be guessed here as well as at the door.
        if form is not None and "old_password" in form.errors and form.data.get("old_password"):
            lockout.count_failure(request, name)
        return answer

    def logout(  # type: ignore[override]  # the same
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        return LogoutView.as_view(next_page=reverse_lazy("admin:login"))(request)

    def get_urls(self) -> list[URLPattern | URLResolver]:
        # Open to whoever is signed in: a person who may not enter must be able to sign out.
        sign_out = path("logout/", csrf_protect(never_cache(self.logout)), name="logout")
        return [sign_out, *super().get_urls()]


def _index_title(request: HttpRequest) -> str:
    user = request.user
    if isinstance(user, User) and user.company is not None:
        return _("Company %(name)s") % {"name": user.company.name}
    return _("Operator: all companies")
