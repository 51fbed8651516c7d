"""Signing in: the password, then the second step. Room: tenants."""

from functools import cache
from typing import Any

import structlog
from django import forms
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from tenants.attempts import AttemptLimiter
from tenants.models import User
from tenants.signin import devices, lockout, steps
from tenants.signin.forms import CodeForm, SignInForm
from tenants.signin.pages import show, too_many

log = structlog.get_logger(__name__)

# Passwords from one network, of whatever names: some at once, then one in so many seconds. Each costs a good part of a
# second of a processor that streams need, so a stranger must not have as many as he likes.
_ATTEMPT_BURST, _ATTEMPT_INTERVAL = 20.0, 2.0
_PAGES: dict[steps.Step, str] = {"code": "sign-in-code", "set-up": "sign-in-set-up"}


@sensitive_post_parameters("password")
@never_cache
@csrf_protect
@require_http_methods(["GET", "HEAD", "POST"])
def sign_in(request: HttpRequest) -> HttpResponse:
    """/admin/login/: username and password."""
    next_url = _next_url(request)
    if request.method != "POST":
        if steps.may_enter(request):
            return HttpResponseRedirect(next_url)
        return _sign_in_page(request, SignInForm(request), next_url)
    if wait := sign_in_limiter().wait_for(str(lockout.client_network(request))):
        return too_many(request, _("Sign in"), wait)
    form = SignInForm(request, request.POST)
    if not form.is_valid():
        return _sign_in_page(request, form, next_url)
    user = form.get_user()
    if not isinstance(user, User):
        raise TypeError("the accounts of this project are Users")
    return after_password(request, user, next_url)


@cache
def sign_in_limiter() -> AttemptLimiter:
    return AttemptLimiter(1.0 / _ATTEMPT_INTERVAL, _ATTEMPT_BURST)


def after_password(request: HttpRequest, user: User, next_url: str) -> HttpResponse:
    """To whatever follows a right password."""
    step = steps.begin(request, user, next_url)
    return HttpResponseRedirect(next_url) if step == "enter" else redirect(_PAGES[step])


@never_cache
@csrf_protect
@require_http_methods(["GET", "HEAD", "POST"])
def sign_in_code(request: HttpRequest) -> HttpResponse:
    """/admin/login/code/: the second step of whoever has a device."""
    pending = steps.pending(request)
    if pending is None:
        return redirect_to_login(reverse("admin:index"), reverse("admin:login"))
    user = pending.user
    if not devices.has_device(user):
        # It was removed in the meantime.
        return after_password(request, user, pending.next_url)
    if lockout.is_locked_out(request, user.get_username()):
        return lockout.locked_out(request, None, {"username": user.get_username()})
    form = CodeForm(request.POST if request.method == "POST" else None)
    if form.is_valid():
        device = accepted_device(request, user, form)
        if device is not None:
            steps.finish(request, user, device)
            return HttpResponseRedirect(pending.next_url)
    return show(request, "signin/code.html", {"title": _("Second step"), "form": form})


def accepted_device(request: HttpRequest, user: User, form: forms.Form) -> devices.AnyDevice | None:
    """The device of the code in ``form``; for a wrong one None, with the reason added to the form, and it counts."""
    try:
        device = devices.check_code(user, form.cleaned_data["code"])
    except devices.Throttled as error:
        text = ngettext(
            "Too many wrong codes. Wait %(seconds)d second, then enter a new code.",
            "Too many wrong codes. Wait %(seconds)d seconds, then enter a new code.",
            error.retry_after,
        )
        form.add_error("code", text % {"seconds": error.retry_after})
        return None
    if device is None:
        log.warning("second_step_failed", user_id=str(user.pk))
        lockout.count_failure(request, user.get_username())
        form.add_error("code", _("This code is wrong or was used already. Enter the code that the app shows now."))
    return device


def _sign_in_page(request: HttpRequest, form: SignInForm, next_url: str) -> HttpResponse:
    context: dict[str, Any] = {"title": _("Sign in"), "form": form, "next": next_url}
    if request.user.is_authenticated and not steps.is_console_user(request.user):
        context["other_user"] = request.user.get_username()
    return show(request, "signin/sign_in.html", context)


def _next_url(request: HttpRequest) -> str:
    """Where to go after signing in; never to another site."""
    wanted = request.POST.get("next") or request.GET.get("next") or ""
    is_ours = url_has_allowed_host_and_scheme(wanted, {request.get_host()}, require_https=request.is_secure())
    return wanted if wanted and is_ours else reverse("admin:index")
