"""Choosing a password by a link: after an invitation, or when it is forgotten. Room: tenants."""

from collections import Counter
from functools import cache
from typing import Any

import structlog
from django.conf import settings
from django.contrib.auth.forms import PasswordResetForm, SetPasswordForm
from django.contrib.auth.tokens import default_token_generator
from django.contrib.auth.views import INTERNAL_RESET_SESSION_TOKEN, PasswordResetConfirmView
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode
from django.utils.translation import get_language, gettext_lazy
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.http import require_http_methods, require_safe

from tenants import audit
from tenants.attempts import AttemptLimiter
from tenants.models import User
from tenants.scope import Actor
from tenants.signin import mail, steps
from tenants.signin.forms import ResetForm
from tenants.signin.invitations import InvitationTokens, invitation_tokens
from tenants.signin.lockout import client_address, client_network
from tenants.signin.pages import base_context, show, too_many
from tenants.signin.people import people
from tenants.signin.views import after_password

log = structlog.get_logger(__name__)

_WELCOME = "signin_welcome"
# Of one address and of one mailbox: some at once, then one in so many seconds.
_RESET_INTERVAL = 120.0
_RESET_BURST = 5.0
# People of one company who share a mailbox; a mail each. Not of all companies together: any company's admin can enter
# somebody else's mailbox for its own people, and must not crowd out who it belongs to.
_RESET_PEOPLE_LIMIT = 5


class _LinkView(PasswordResetConfirmView):
    """Takes the token out of the address and into the session, then lets a password be chosen, once."""

    template_name = "signin/choose_password.html"
    token_generator: Any = None
    action = ""
    dead_link_hint: Any = ""

    def get_user(self, uidb64: str) -> Any:
        user = super().get_user(uidb64)
        return user if user is not None and user.is_active else None

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return {
            **base_context(self.request),
            **super().get_context_data(**kwargs),
            # One title for all that is wrong with a link: it is nobody's business which.
            "title": self.title if self.validlink else _("This link does not work"),
            "hint": self.dead_link_hint,
            "person": self.user if self.validlink else None,
        }

    def render_to_response(self, context: dict[str, Any], **kwargs: Any) -> HttpResponse:
        return super().render_to_response(context, **{"status": 200 if self.validlink else 410, **kwargs})

    def form_valid(self, form: "SetPasswordForm[User]") -> HttpResponse:
        token = self.request.session.pop(INTERNAL_RESET_SESSION_TOKEN, None)
        with transaction.atomic():
            # Of two answers at once the second finds the link used.
            user = people().select_for_update().filter(pk=form.user.pk, is_active=True).first()
            if user is None or not self.token_generator.check_token(user, token):
                self.validlink = False
                return self.render_to_response(self.get_context_data())
            form.user = user
            form.save()
            actor = Actor.of(user, client_address(self.request) or "")
            audit.record(actor, self.action, user, company_id=user.company_id)
        log.info(self.action, user_id=str(user.pk))
        return self.after(user)

    def after(self, user: User) -> HttpResponse:
        raise NotImplementedError


class InvitationView(_LinkView):
    """/invitations/<uid>/<token>/"""

    token_generator: InvitationTokens = invitation_tokens
    title = gettext_lazy("Choose your password")
    action = "invitation_accepted"
    dead_link_hint = gettext_lazy("Ask your company's admin for a new invitation.")

    def after(self, user: User) -> HttpResponse:
        if steps.is_console_user(user):
            return after_password(self.request, user, reverse("admin:index"))
        # Nobody who was signed in here before stays so.
        self.request.session.flush()
        self.request.session[_WELCOME] = user.get_username()
        return redirect("invitation-done")


class ResetLinkView(_LinkView):
    """/password-reset/<uid>/<token>/; signs nobody in, the second step is still due."""

    token_generator = default_token_generator
    title = gettext_lazy("Choose a new password")
    action = "password_reset"
    dead_link_hint = gettext_lazy("Ask for a new link.")

    def after(self, user: User) -> HttpResponse:
        self.request.session.flush()
        return redirect("password-reset-done")


@never_cache
@require_safe
def welcome(request: HttpRequest) -> HttpResponse:
    """/invitations/done/: what a trader does next."""
    username = request.session.get(_WELCOME)
    if username is None:
        return redirect("admin:login")
    base = settings.GATEWAY_PUBLIC_URL or request.build_absolute_uri("/").rstrip("/")
    # http becomes ws, https becomes wss.
    address = base.replace("http", "ws", 1) + "/ws/mt5"
    context = {"title": _("Your account works"), "username": username, "address": address}
    return show(request, "signin/welcome.html", context)


@never_cache
@csrf_protect
@require_http_methods(["GET", "HEAD", "POST"])
def ask_reset(request: HttpRequest) -> HttpResponse:
    """/password-reset/: the same answer in the same time, whoever the address belongs to."""
    form = ResetForm(request.POST if request.method == "POST" else None)
    if not form.is_valid():
        return show(request, "signin/ask_reset.html", {"title": _("Forgotten password"), "form": form})
    email = form.cleaned_data["email"]
    if wait := reset_limiter().wait_for(f"address {client_network(request)}"):
        return too_many(request, _("Forgotten password"), wait)
    if not reset_limiter().wait_for(f"mailbox {email.lower()}"):
        _mail_links(request, email)
    return redirect("password-reset-sent")


@never_cache
@require_safe
def reset_sent(request: HttpRequest) -> HttpResponse:
    return show(request, "signin/reset_sent.html", {"title": _("Look into your mailbox")})


@never_cache
@require_safe
def reset_done(request: HttpRequest) -> HttpResponse:
    return show(request, "signin/reset_done.html", {"title": _("Your new password works")})


@cache
def reset_limiter() -> AttemptLimiter:
    return AttemptLimiter(1.0 / _RESET_INTERVAL, _RESET_BURST)


def _mail_links(request: HttpRequest, email: str) -> None:
    base = settings.GATEWAY_PUBLIC_URL or request.build_absolute_uri("/").rstrip("/")
    language = get_language() or settings.LANGUAGE_CODE
    mailed: Counter[Any] = Counter()
    for user in PasswordResetForm().get_users(email):
        if mailed[user.company_id] == _RESET_PEOPLE_LIMIT:
            continue
        mailed[user.company_id] += 1
        uid = urlsafe_base64_encode(force_bytes(user.pk))
        path = reverse("password-reset-link", args=[uid, default_token_generator.make_token(user)])
        mail.send_later(
            user, "reset", {"link": base + path, "minutes": settings.PASSWORD_RESET_TIMEOUT // 60}, language
        )
