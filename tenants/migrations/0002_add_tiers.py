"""The three plans of the product."""

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

GIB = 1024**3
TIERS = [
    {
        "code": "FREE",
        "user_limit": 1,
        "company_account_limit": 5,
        "user_account_limit": 5,
        "pair_limit": 5,
        "message_rate_limit": 20.0,
        "connection_limit": 2,
        "monthly_data_limit": 1 * GIB,
        "monthly_api_call_limit": 10_000,
        "has_signals": False,
        "has_alerts": True,
        "has_replay": False,
    },
    {
        "code": "PRO",
        "user_limit": 5,
        "company_account_limit": 20,
        "user_account_limit": 10,
        "pair_limit": 20,
        "message_rate_limit": 50.0,
        "connection_limit": 10,
        "monthly_data_limit": 50 * GIB,
        "monthly_api_call_limit": 500_000,
        "has_signals": True,
        "has_alerts": True,
        "has_replay": False,
    },
    {
        "code": "ENTERPRISE",
        "user_limit": 10,
        "company_account_limit": 50,
        "user_account_limit": 20,
        "pair_limit": 100,
        "message_rate_limit": 100.0,
        "connection_limit": 20,
        "monthly_data_limit": 500 * GIB,
        "monthly_api_call_limit": 5_000_000,
        "has_signals": True,
        "has_alerts": True,
        "has_replay": True,
    },
]


def add_tiers(apps: Apps, _schema_editor: BaseDatabaseSchemaEditor) -> None:
    tier = apps.get_model("tenants", "SubscriptionTier")
    for limits in TIERS:
        tier.objects.get_or_create(code=limits["code"], defaults=limits)


class Migration(migrations.Migration):
    dependencies = [("tenants", "0001_initial")]
    operations = [migrations.RunPython(add_tiers, migrations.RunPython.noop)]
