"""What users are held to beyond their plan: bans and kicks. Room: tenants."""

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _


class Ban(models.Model):
    """A time in which a user is not let in, whatever the token; it ends by itself or is lifted by an operator."""

    class Reason(models.TextChoices):
        ERRORS = "errors", _("too many invalid messages")
        FLOODING = "flooding", _("sustained flooding")
        OPERATOR = "operator", _("by an operator")

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="bans", verbose_name=_("user")
    )
    reason = models.CharField(_("reason"), max_length=12, choices=Reason.choices)
    detail = models.CharField(_("detail"), max_length=200, blank=True)
    starts_at = models.DateTimeField(_("starts"))
    until = models.DateTimeField(_("until"))
    # Which ban within a day it is, from 1: each is longer than the one before.
    repeat = models.PositiveIntegerField(_("repeat"), default=1)
    lifted_at = models.DateTimeField(_("lifted"), null=True, blank=True)
    lifted_by = models.CharField(_("lifted by"), max_length=150, blank=True)

    class Meta:
        ordering = ["-starts_at"]
        verbose_name = _("ban")
        verbose_name_plural = _("bans")
        indexes = [models.Index(fields=["user", "until"], name="ban_by_user")]
        constraints = [
            models.CheckConstraint(condition=models.Q(until__gt=models.F("starts_at")), name="ban_ends_after_start"),
        ]

    def __str__(self) -> str:
        return f"{self.user}: {self.get_reason_display()}"


class Kick(models.Model):
    """An order to end one live connection, or all of a user; gateways read new rows, old ones may go."""

    # Empty: all connections of the user.
    session_id = models.CharField(max_length=32, blank=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="kicks")
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)

    def __str__(self) -> str:
        return self.session_id or str(self.user)
