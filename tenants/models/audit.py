"""Who changed what: rows that are only ever added. Room: tenants."""

from typing import Any, NoReturn

from django.db import models
from django.utils.translation import gettext_lazy as _


class AuditEntry(models.Model):
    """One change. Names and ids are copied, so that an entry outlives what it speaks of.

    The database refuses UPDATE and DELETE by a trigger; the methods here only say so earlier.
    """

    at = models.DateTimeField(_("at"), auto_now_add=True, db_index=True)
    actor_id = models.UUIDField(_("actor id"), null=True)
    actor = models.CharField(_("by"), max_length=150)
    # From where the request came; empty for a command.
    address = models.CharField(_("address"), max_length=64, blank=True)
    company_id = models.UUIDField(_("company id"), null=True, db_index=True)
    action = models.CharField(_("action"), max_length=40)
    object_type = models.CharField(_("kind"), max_length=40)
    object_id = models.CharField(_("object id"), max_length=64)
    object_name = models.CharField(_("object"), max_length=200)
    # Only the fields that changed, as text; secrets never.
    before = models.JSONField(_("before"), default=dict)
    after = models.JSONField(_("after"), default=dict)

    class Meta:
        ordering = ["-id"]
        verbose_name = _("audit entry")
        verbose_name_plural = _("audit log")

    def __str__(self) -> str:
        return f"{self.action} {self.object_type} {self.object_name}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise TypeError("audit entries are never changed")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("audit entries are never deleted")
