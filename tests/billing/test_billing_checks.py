"""Payment settings that would be wrong in production are named before they cost money."""

from typing import Any

import pytest

from billing.checks import midtrans

GOOD = {
    "MIDTRANS_SERVER_KEY": "Mid-server-production",
    "MIDTRANS_SIGNING_KEYS": ["Mid-server-production"],
    "MIDTRANS_BASE_URL": "https://api.midtrans.com",
}


@pytest.mark.parametrize(
    ("changes", "ids"),
    [
        ({}, []),
        ({"MIDTRANS_SERVER_KEY": "", "MIDTRANS_SIGNING_KEYS": [""]}, ["billing.E001", "billing.E002"]),
        ({"MIDTRANS_SIGNING_KEYS": ["one", " "]}, ["billing.E002"]),
        ({"MIDTRANS_BASE_URL": "http://127.0.0.1:9000"}, ["billing.E003"]),
        ({"MIDTRANS_BASE_URL": "https://api.sandbox.midtrans.com"}, ["billing.W001"]),
        ({"MIDTRANS_SERVER_KEY": "SB-Mid-server-x"}, ["billing.W001"]),
    ],
)
def test_setting_that_is_wrong_in_production_is_named(settings: Any, changes: dict[str, Any], ids: list[str]) -> None:
    for name, value in {**GOOD, **changes}.items():
        setattr(settings, name, value)
    assert [problem.id for problem in midtrans(None)] == ids
