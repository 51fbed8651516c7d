"""Events that wait for Kafka, and who may publish them. Room: events."""

import uuid

from django.db import models
from django.db.models import Q


class OutboxEvent(models.Model):
    """One record for Kafka, written in the transaction of the change that it tells of."""

    id = models.BigAutoField(primary_key=True)
    # Goes along as a header: an event may be published twice, and this tells.
    event_id = models.UUIDField(unique=True, default=uuid.uuid4, editable=False)
    topic = models.CharField(max_length=249)
    key = models.TextField()
    value = models.BinaryField()
    created_at = models.DateTimeField(auto_now_add=True)
    # Kafka has confirmed it.
    published_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        indexes = [
            # Small however many rows are kept: what the relay asks for several times a second.
            models.Index(fields=["id"], condition=Q(published_at__isnull=True), name="events_unpublished"),
            models.Index(fields=["published_at"], condition=Q(published_at__isnull=False), name="events_published"),
        ]

    def __str__(self) -> str:
        return f"{self.topic} {self.event_id}"


class RelayLease(models.Model):
    """Whoever holds it publishes; it runs out by itself when its holder is gone."""

    name = models.CharField(max_length=50, primary_key=True)
    # Names one relay of one process; empty: nobody's.
    holder = models.CharField(max_length=100, blank=True)
    expires_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.name}: {self.holder or 'nobody'}"
