"""Companies, the tenants of the product. Room: tenants."""

import datetime
import uuid
from collections.abc import Iterable

from django.db import models
from django.db.models.base import ModelBase
from django.utils.translation import gettext_lazy as _

from tenants.models.tiers import SubscriptionTier


class Company(models.Model):
    """One tenant. ``access_version`` rises with every change that concerns what its users may do."""

    class Status(models.TextChoices):
        ACTIVE = "active", _("active")
        SUSPENDED = "suspended", _("suspended")
        UNPAID = "unpaid", _("unpaid")

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(_("name"), max_length=120)
    slug = models.SlugField(_("short name"), max_length=60, unique=True)
    tier = models.ForeignKey(
        SubscriptionTier, on_delete=models.PROTECT, related_name="companies", verbose_name=_("subscription tier")
    )
    status = models.CharField(_("status"), max_length=12, choices=Status.choices, default=Status.ACTIVE)
    status_reason = models.CharField(_("reason of the status"), max_length=200, blank=True)
    paid_until = models.DateTimeField(_("paid until"), null=True, blank=True, help_text=_("empty: not limited in time"))
    grace = models.DurationField(
        _("grace"), default=datetime.timedelta(days=3), help_text=_("how long access goes on after that")
    )
    access_version = models.PositiveBigIntegerField(_("access version"), default=1, editable=False)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    updated_at = models.DateTimeField(_("updated"), auto_now=True)

    class Meta:
        ordering = ["name"]
        verbose_name = _("company")
        verbose_name_plural = _("companies")
        constraints = [
            models.CheckConstraint(
                condition=models.Q(status__in=["active", "suspended", "unpaid"]), name="company_status_is_known"
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def save(
        self,
        *,
        force_insert: bool | tuple[ModelBase, ...] = False,
        force_update: bool = False,
        using: str | None = None,
        update_fields: Iterable[str] | None = None,
    ) -> None:
        """Writes all but ``access_version``, which only rises in the database: a stale copy would take it back."""
        if not self._state.adding and not force_insert:
            if update_fields is None:
                fields = {field.name for field in self._meta.concrete_fields if not field.primary_key}
                # Deferred fields go by the name of their attribute: tier_id.
                deferred = self.get_deferred_fields()
                fields -= {field.name for field in self._meta.concrete_fields if field.attname in deferred}
                update_fields = fields
            update_fields = set(update_fields) - {"access_version"}
        super().save(force_insert=force_insert, force_update=force_update, using=using, update_fields=update_fields)
