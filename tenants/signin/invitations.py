"""Invitations: a link with which a new person chooses a password. Room: tenants."""

import datetime
import math
from functools import cache

import structlog
from django.conf import settings
from django.contrib import messages
from django.core.signing import BadSignature, TimestampSigner
from django.db import transaction
from django.http import HttpRequest
from django.urls import reverse
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode
from django.utils.translation import get_language
from django.utils.translation import gettext as _

from tenants.attempts import AttemptLimiter
from tenants.models import User
from tenants.signin import mail
from tenants.signin.people import people

log = structlog.get_logger(__name__)


# Mails of invitations to one mailbox: some at once, then one in so many seconds; and of one company. An admin decides
# who is written to, and must not be able to make our mail server a nuisance.
_MAILBOX_BURST, _MAILBOX_INTERVAL = 5.0, 120.0
_COMPANY_BURST, _COMPANY_INTERVAL = 50.0, 60.0


class NotInvitable(ValueError):
    """The text says to the inviter what to do."""


class InvitationTokens:
    """Signatures over what an invitation depends on, valid for GATEWAY_INVITATION_TTL.

    A password chosen, a new invitation, another address or a disabled account make a token void.
    """

    def make_token(self, user: User) -> str:
        subject = str(user.pk)
        return self._signer(user).sign(subject).removeprefix(f"{subject}.")

    def check_token(self, user: User | None, token: str | None) -> bool:
        if user is None or not token or not user.is_active or user.has_usable_password():
            return False
        try:
            self._signer(user).unsign(
                f"{user.pk}.{token}", max_age=datetime.timedelta(seconds=settings.GATEWAY_INVITATION_TTL)
            )
        except BadSignature:
            return False
        return True

    def _signer(self, user: User) -> TimestampSigner:
        # An unusable password is random text of its own, made anew by each invitation.
        return TimestampSigner(sep=".", salt=f"tenants.signin.invitations:{user.password}:{user.email}")


invitation_tokens = InvitationTokens()


def send_invitation(user: User, *, inviter_name: str, request: HttpRequest | None = None, base_url: str = "") -> None:
    """Mails a link to choose a password when the transaction is committed; older links of this person are void.

    ``base_url`` ("https://gateway.example") is for callers without a request; GATEWAY_PUBLIC_URL goes before both. With
    a request, the inviter is told there when the mail server refuses. The language is the one that is active.
    Raises NotInvitable for a person without an address, disabled, or with a password already, and where too many mails
    have gone out.
    """
    if not user.email:
        raise NotInvitable(_("Enter an e-mail address for %(name)s first.") % {"name": user.username})
    if not user.is_active:
        raise NotInvitable(_("Enable %(name)s first.") % {"name": user.username})
    base = settings.GATEWAY_PUBLIC_URL or (request.build_absolute_uri("/") if request else base_url)
    if not base:
        raise ValueError("a request or a base_url is needed for the link")
    with transaction.atomic():
        locked = people().select_for_update().get(pk=user.pk)
        if locked.has_usable_password():
            text = _("%(name)s has a password already; it can be reset on the sign-in page.")
            raise NotInvitable(text % {"name": user.username})
        mailboxes, companies = invitation_limiters()
        wait = mailboxes.wait_for(user.email.lower()) or companies.wait_for(str(user.company_id))
        if wait:
            text = _("Too many invitations were sent: wait %(minutes)d min, then invite %(name)s again.")
            raise NotInvitable(text % {"minutes": max(1, math.ceil(wait / 60)), "name": user.username})
        user.set_unusable_password()
        user.save(update_fields=["password"])
        context = {
            "inviter_name": inviter_name,
            "link": base.rstrip("/") + _path(user),
            "days": max(1, round(settings.GATEWAY_INVITATION_TTL / 86_400)),
        }
        language = get_language() or settings.LANGUAGE_CODE
        transaction.on_commit(lambda: _send(user, context, language, request))


@cache
def invitation_limiters() -> tuple[AttemptLimiter, AttemptLimiter]:
    """Of mailboxes and of companies."""
    return (
        AttemptLimiter(1.0 / _MAILBOX_INTERVAL, _MAILBOX_BURST),
        AttemptLimiter(1.0 / _COMPANY_INTERVAL, _COMPANY_BURST),
    )


def _path(user: User) -> str:
    uid = urlsafe_base64_encode(force_bytes(user.pk))
    return reverse("invitation", args=[uid, invitation_tokens.make_token(user)])


def _send(user: User, context: dict[str, object], language: str, request: HttpRequest | None) -> None:
    if mail.send(user, "invitation", context, language) or request is None:
        return
    text = _("The invitation of %(name)s could not be sent: check the address, then invite again.")
    messages.error(request, text % {"name": user.username})
