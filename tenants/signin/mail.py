"""Mail to one person, as text and as simple HTML. Room: tenants."""

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import structlog
from django.core.mail import EmailMultiAlternatives
from django.template.loader import render_to_string
from django.utils import translation

from tenants.models import User

log = structlog.get_logger(__name__)

# Mails that may wait for a mail server that is slow; more are dropped, whoever waits asks again.
_WAITING_LIMIT = 100
_waiting = threading.BoundedSemaphore(_WAITING_LIMIT)


def send(user: User, template: str, context: Mapping[str, Any], language: str) -> bool:
    """Sends ``signin/mail/<template>_subject.txt``, ``.txt`` and ``.html``; says whether the mail server took it.

    A failure is logged, without the address and the content: the mail may hold a link that opens the account.
    """
    with translation.override(language):
        context = {"user": user, "language": language, **context}
        subject = " ".join(render_to_string(f"signin/mail/{template}_subject.txt", context).split())
        mail = EmailMultiAlternatives(
            subject, render_to_string(f"signin/mail/{template}.txt", context), to=[user.email]
        )
        mail.attach_alternative(render_to_string(f"signin/mail/{template}.html", context), "text/html")
    try:
        mail.send()
    except Exception as error:  # what a mail server does wrong is not ours to list
        log.error("mail_failed", kind=template, user_id=str(user.pk), error=type(error).__name__)
        return False
    log.info("mail_sent", kind=template, user_id=str(user.pk))
    return True


def send_later(user: User, template: str, context: Mapping[str, Any], language: str) -> None:
    """The same without waiting, so that the time of the answer does not tell whether there was a mail to send."""
    if not _waiting.acquire(blocking=False):
        log.error("mail_dropped", kind=template, user_id=str(user.pk))
        return
    _sender().submit(_send_and_release, user, template, context, language)


def _send_and_release(user: User, template: str, context: Mapping[str, Any], language: str) -> None:
    try:
        send(user, template, context, language)
    finally:
        _waiting.release()


@cache
def _sender() -> ThreadPoolExecutor:
    """One thread: the order is kept, and a slow mail server is asked one thing at a time."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="mail")
