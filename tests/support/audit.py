"""Takes the audit entries of a test away, which the database refuses to give up."""

from django.db import connection

_TRIGGER = "tenants_auditentry_no_delete"


def forget_audit() -> None:
    """For tests that commit: SQLite's flush deletes rows, which the log's trigger stops; PostgreSQL's truncates."""
    if connection.vendor != "sqlite":
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT sql FROM sqlite_master WHERE type = 'trigger' AND name = %s", [_TRIGGER])
        [rule] = cursor.fetchone()
        cursor.execute(f"DROP TRIGGER {_TRIGGER}")
        cursor.execute("DELETE FROM tenants_auditentry")
        cursor.execute(rule)
