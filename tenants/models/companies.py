"""Companies, the tenants of the product. Room: tenants."""

import datetime
import uuid

from django.db import models

from tenants.models.tiers import SubscriptionTier


class Company(models.Model):
    """One tenant. ``access_version`` rises with every change that concerns what its users may do."""

    class Status(models.TextChoices):
        ACTIVE = "active", "active"
        SUSPENDED = "suspended", "suspended"
        UNPAID = "unpaid", "unpaid"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=120)
    slug = models.SlugField(max_length=60, unique=True)
    tier = models.ForeignKey(SubscriptionTier, on_delete=models.PROTECT, related_name="companies")
    status = models.CharField(max_length=12, choices=Status.choices, default=Status.ACTIVE)
    paid_until = models.DateTimeField(null=True, blank=True, help_text="empty: not limited in time")
    grace = models.DurationField(default=datetime.timedelta(days=3), help_text="how long access goes on after that")
    access_version = models.PositiveBigIntegerField(default=1, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["name"]
        verbose_name_plural = "companies"
        constraints = [
            models.CheckConstraint(
                condition=models.Q(status__in=["active", "suspended", "unpaid"]), name="company_status_is_known"
            ),
        ]

    def __str__(self) -> str:
        return self.name
