"""The second step has a clock that stands in the middle of a step of 30 s, until a test moves it."""

import datetime
from types import SimpleNamespace

import pytest
from django_otp import models as throttling
from django_otp.plugins.otp_totp import models as totp

from tenants.signin import devices
from tests.tenants.signin import people


class StillClock:
    """Of the server and of the phones."""

    def __init__(self) -> None:
        self.elapsed = 0.0

    def time(self) -> float:
        return 1_800_000_015.0 + self.elapsed

    def now(self) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(self.time(), datetime.UTC)


@pytest.fixture(autouse=True)
def otp_clock(monkeypatch: pytest.MonkeyPatch) -> StillClock:
    clock = StillClock()
    for module in (totp, devices, people):
        monkeypatch.setattr(module, "time", clock)
    for module in (throttling, devices):
        monkeypatch.setattr(module, "timezone", SimpleNamespace(now=clock.now))
    return clock
