"""A person's second factor: setting it up, turning it off, new recovery codes. Room: tenants."""

from collections.abc import Callable
from typing import Any

import segno
from django import forms
from django.contrib import admin, messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_safe

from tenants import audit
from tenants.models import User
from tenants.scope import Actor
from tenants.signin import devices, lockout, steps
from tenants.signin.forms import AppCodeForm, ProvenAppCodeForm, ProvenCodeForm
from tenants.signin.lockout import client_address
from tenants.signin.pages import show
from tenants.signin.views import accepted_device, after_password

# Of an app that is being set up; the database knows of it when a code has proved it.
_KEY = "signin_new_key"

View = Callable[[HttpRequest], HttpResponse]


def _signed_in(view: Callable[[HttpRequest, User], HttpResponse]) -> View:
    """For whoever has passed all steps; the others go to the sign-in, as from any page of the admin."""

    def guarded(request: HttpRequest) -> HttpResponse:
        user = request.user
        if not isinstance(user, User):
            raise TypeError("the admin lets in Users only")
        return view(request, user)

    return sensitive_post_parameters()(admin.site.admin_view(guarded))


@require_safe
def _status(request: HttpRequest, user: User) -> HttpResponse:
    context = {
        "title": _("Security"),
        "has_device": devices.has_device(user),
        "codes_left": devices.recovery_codes_left(user),
        "is_required": steps.is_required(),
    }
    return show(request, "signin/security.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def _turn_off(request: HttpRequest, user: User) -> HttpResponse:
    form = ProvenCodeForm(request.POST if request.method == "POST" else None)
    if form.is_valid() and _is_proven(request, user, form):
        with transaction.atomic():
            devices.remove_devices(user)
            _record(request, user, "two_factor_off")
        messages.success(request, _("Two-factor sign-in is off; the old codes no longer work."))
        return redirect("security")
    context = {"title": _("Turn off two-factor sign-in"), "form": form, "button": _("Turn off"), "is_danger": True}
    return show(request, "signin/prove.html", {**context, "is_required": steps.is_required()})


@require_http_methods(["GET", "HEAD", "POST"])
def _recovery_codes(request: HttpRequest, user: User) -> HttpResponse:
    if not devices.has_device(user):
        return redirect("security")
    form = ProvenCodeForm(request.POST if request.method == "POST" else None)
    if form.is_valid() and _is_proven(request, user, form):
        with transaction.atomic():
            codes = devices.renew_recovery_codes(user)
            _record(request, user, "recovery_codes_renewed")
        return _codes_page(request, codes, reverse("security"))
    context = {"title": _("New recovery codes"), "form": form, "button": _("Make new codes")}
    return show(request, "signin/prove.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def _set_up(request: HttpRequest, user: User) -> HttpResponse:
    """For somebody who is signed in and wants a second step."""
    if devices.has_device(user):
        return redirect("security")
    form = ProvenAppCodeForm(request.POST if request.method == "POST" else None)
    if form.is_valid() and not lockout.password_is_right(request, user, form.cleaned_data["password"]):
        form.add_error("password", _("This password is wrong."))
    made = _made(request, user, form)
    if isinstance(made, HttpResponse):
        return made
    device, codes = made
    devices.mark_verified(request, device)
    # Whoever watched the session before may not go on with it.
    request.session.cycle_key()
    return _codes_page(request, codes, reverse("security"))


@sensitive_post_parameters()
@require_http_methods(["GET", "HEAD", "POST"])
def sign_in_set_up(request: HttpRequest) -> HttpResponse:
    """/admin/login/set-up/: between the password and the admin, where a second step is required."""
    pending = steps.pending(request)
    if pending is None:
        return redirect("admin:login")
    user = pending.user
    if steps.next_step(user) != "set-up":
        return after_password(request, user, pending.next_url)
    made = _made(request, user, AppCodeForm(request.POST if request.method == "POST" else None))
    if isinstance(made, HttpResponse):
        return made
    device, codes = made
    steps.finish(request, user, device)
    return _codes_page(request, codes, pending.next_url)


def _made(request: HttpRequest, user: User, form: forms.Form) -> tuple[devices.AnyDevice, list[str]] | HttpResponse:
    """The new device and its recovery codes when the form proves it, else the page that shows the secret."""
    key = request.session.get(_KEY)
    if key is None:
        key = request.session[_KEY] = devices.new_key()
    elif form.is_valid():
        try:
            with transaction.atomic():
                made = devices.set_up(user, key, form.cleaned_data["code"])
                if made is not None:
                    _record(request, user, "two_factor_on")
        except devices.AlreadySetUp:
            return redirect("admin:login")
        if made is not None:
            del request.session[_KEY]
            return made
        form.add_error("code", _("This code does not fit. Enter the code that the app shows now."))
    context = {
        "title": _("Set up two-factor sign-in"),
        "form": form,
        "qr": _qr(devices.provisioning_url(user, key)),
        "secret": devices.key_as_text(key),
        "is_required": steps.is_required(),
    }
    return show(request, "signin/set_up.html", context)


def _is_proven(request: HttpRequest, user: User, form: forms.Form) -> bool:
    """Password and code, in this order: a code is not used up by a wrong password."""
    if not lockout.password_is_right(request, user, form.cleaned_data["password"]):
        form.add_error("password", _("This password is wrong."))
        return False
    return accepted_device(request, user, form) is not None


def _codes_page(request: HttpRequest, codes: list[str], next_url: str) -> HttpResponse:
    """The only time that these codes are seen; so there is no way on the page to lose them by accident."""
    context: dict[str, Any] = {"title": _("Recovery codes"), "codes": codes, "next": next_url}
    return show(request, "signin/recovery_codes.html", {**context, "is_language_fixed": True})


def _qr(text: str) -> SafeString:
    svg = segno.make(text, error="m").svg_inline(
        scale=5, border=4, dark="#000", light="#fff", omitsize=True, svgclass="qr", lineclass=None
    )
    return mark_safe(svg)  # noqa: S308 (numbers and colours of our own)


def _record(request: HttpRequest, user: User, action: str) -> None:
    actor = Actor.of(user, client_address(request) or "")
    audit.record(actor, action, user, company_id=user.company_id)


status = _signed_in(_status)
turn_off = _signed_in(_turn_off)
recovery_codes = _signed_in(_recovery_codes)
set_up = _signed_in(_set_up)
