"""Takes the logs of a test away, which the database refuses to give up."""

from django.db import connection

# Table and the trigger that keeps its rows.
_LOGS = (
    ("tenants_auditentry", "tenants_auditentry_no_delete"),
    ("billing_billingentry", "billing_billingentry_no_delete"),
)


def forget_audit() -> None:
    """For tests that commit: SQLite's flush deletes rows, which the logs' triggers stop; PostgreSQL's truncates."""
    if connection.vendor != "sqlite":
        return
    with connection.cursor() as cursor:
        for table, trigger in _LOGS:
            cursor.execute("SELECT sql FROM sqlite_master WHERE type = 'trigger' AND name = %s", [trigger])
            [rule] = cursor.fetchone()
            cursor.execute(f"DROP TRIGGER {trigger}")
            cursor.execute(f"DELETE FROM {table}")  # noqa: S608  # a name of the table above
            cursor.execute(rule)
