"""What the database holds to by itself: the audit log only grows, and an account's owner is of its company."""

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

COMPANY_CONNECTIONS = {"FREE": 2, "PRO": 50, "ENTERPRISE": 200}

POSTGRESQL = """
CREATE FUNCTION tenants_refuse_change() RETURNS trigger AS $$
BEGIN
  RAISE EXCEPTION 'audit entries are never changed or deleted';
END $$ LANGUAGE plpgsql;
CREATE TRIGGER tenants_auditentry_append_only BEFORE UPDATE OR DELETE ON tenants_auditentry
  FOR EACH ROW EXECUTE FUNCTION tenants_refuse_change();
CREATE FUNCTION tenants_check_account_owner() RETURNS trigger AS $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM tenants_user WHERE id = NEW.owner_id AND company_id = NEW.company_id) THEN
    RAISE EXCEPTION 'the owner of an MT5 account is a user of its company' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $$ LANGUAGE plpgsql;
CREATE TRIGGER tenants_mt5account_owner BEFORE INSERT OR UPDATE OF owner_id, company_id ON tenants_mt5account
  FOR EACH ROW EXECUTE FUNCTION tenants_check_account_owner();
"""
POSTGRESQL_BACK = """
DROP TRIGGER tenants_mt5account_owner ON tenants_mt5account;
DROP FUNCTION tenants_check_account_owner();
DROP TRIGGER tenants_auditentry_append_only ON tenants_auditentry;
DROP FUNCTION tenants_refuse_change();
"""
SQLITE = [
    """CREATE TRIGGER tenants_auditentry_no_update BEFORE UPDATE ON tenants_auditentry
    BEGIN SELECT RAISE(ABORT, 'audit entries are never changed or deleted'); END""",
    """CREATE TRIGGER tenants_auditentry_no_delete BEFORE DELETE ON tenants_auditentry
    BEGIN SELECT RAISE(ABORT, 'audit entries are never changed or deleted'); END""",
    *(
        f"""CREATE TRIGGER tenants_mt5account_owner_{name} BEFORE {event} ON tenants_mt5account
    WHEN NOT EXISTS (SELECT 1 FROM tenants_user WHERE id = NEW.owner_id AND company_id = NEW.company_id)
    BEGIN SELECT RAISE(ABORT, 'the owner of an MT5 account is a user of its company'); END"""
        for name, event in (("insert", "INSERT"), ("update", "UPDATE OF owner_id, company_id"))
    ),
]
SQLITE_NAMES = [
    "tenants_auditentry_no_update",
    "tenants_auditentry_no_delete",
    "tenants_mt5account_owner_insert",
    "tenants_mt5account_owner_update",
]


def add_rules(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    tier = apps.get_model("tenants", "SubscriptionTier")
    for code, connections in COMPANY_CONNECTIONS.items():
        tier.objects.filter(code=code).update(company_connection_limit=connections)
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(POSTGRESQL)
    elif schema_editor.connection.vendor == "sqlite":
        for statement in SQLITE:
            schema_editor.execute(statement)


def drop_rules(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(POSTGRESQL_BACK)
    elif schema_editor.connection.vendor == "sqlite":
        for name in SQLITE_NAMES:
            schema_editor.execute(f"DROP TRIGGER {name}")


class Migration(migrations.Migration):
    dependencies = [("tenants", "0003_limits_conduct_audit")]
    operations = [migrations.RunPython(add_rules, drop_rules)]
