"""Events on their way out of the database, and fast news between processes. Room: events."""

from django.apps import AppConfig


class EventsConfig(AppConfig):
    name = "events"
