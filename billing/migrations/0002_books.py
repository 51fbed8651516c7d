"""The billing log only grows, by the database's own rule; the three plans of the product and their prices."""

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

# (tier, name, rank, rupiah by period), tax included.
PLANS = [
    ("FREE", "Free", 0, {}),
    ("PRO", "Pro", 10, {"monthly": 499_000, "yearly": 4_990_000}),
    ("ENTERPRISE", "Enterprise", 20, {"monthly": 2_499_000, "yearly": 24_990_000}),
]
POSTGRESQL = """
CREATE FUNCTION billing_refuse_change() RETURNS trigger AS $$
BEGIN
  RAISE EXCEPTION 'billing entries are never changed or deleted';
END $$ LANGUAGE plpgsql;
CREATE TRIGGER billing_billingentry_append_only BEFORE UPDATE OR DELETE ON billing_billingentry
  FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();
"""
POSTGRESQL_BACK = """
DROP TRIGGER billing_billingentry_append_only ON billing_billingentry;
DROP FUNCTION billing_refuse_change();
"""
SQLITE = {
    f"billing_billingentry_no_{name}": f"""CREATE TRIGGER billing_billingentry_no_{name} BEFORE {event}
    ON billing_billingentry
    BEGIN SELECT RAISE(ABORT, 'billing entries are never changed or deleted'); END"""
    for name, event in (("update", "UPDATE"), ("delete", "DELETE"))
}


def add_rules(_apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(POSTGRESQL)
    elif schema_editor.connection.vendor == "sqlite":
        for statement in SQLITE.values():
            schema_editor.execute(statement)


def drop_rules(_apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(POSTGRESQL_BACK)
    elif schema_editor.connection.vendor == "sqlite":
        for name in SQLITE:
            schema_editor.execute(f"DROP TRIGGER {name}")


def add_plans(apps: Apps, _schema_editor: BaseDatabaseSchemaEditor) -> None:
    tier, plan, price = (
        apps.get_model(*name) for name in (("tenants", "SubscriptionTier"), ("billing", "Plan"), ("billing", "Price"))
    )
    for code, name, rank, amounts in PLANS:
        row, _ = plan.objects.get_or_create(tier=tier.objects.get(code=code), defaults={"name": name, "rank": rank})
        for interval, amount in amounts.items():
            price.objects.get_or_create(plan=row, interval=interval, is_active=True, defaults={"amount": amount})


class Migration(migrations.Migration):
    dependencies = [("billing", "0001_initial"), ("tenants", "0004_rules_in_the_database")]
    operations = [
        migrations.RunPython(add_rules, drop_rules),
        migrations.RunPython(add_plans, migrations.RunPython.noop),
    ]
