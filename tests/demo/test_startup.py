"""What a start does in which order, and what a second one does not do again (gateway_project: demo)."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.db import connection
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from billing.demo import forget_payments, give_plans
from gateway_project.demo import startup
from gateway_project.demo.children import Child
from gateway_project.demo.services import Services, plan
from gateway_project.demo.startup import Startup, waiting_migrations
from tenants.demo import seed_demo


class _Screen:
    def __init__(self) -> None:
        self.said: list[str] = []

    def doing(self, text: str) -> None:
        self.said.append(text)

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_: None


class Stage:
    """All that a start would do, written down instead."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, state_dir: Path) -> None:
        self.acts: list[str] = []
        self.screen = _Screen()
        self.waiting = 0
        self._services: Services = plan(8451)
        for child in self._services.all():
            monkeypatch.setattr(child, "start", lambda _now, name=child.name: self.acts.append(f"start {name}"))
        self._replace(monkeypatch, "call_command", lambda name, **_: self.acts.append(name))
        self._replace(monkeypatch, "waiting_migrations", lambda: self.waiting)
        self._replace(monkeypatch, "seed_demo", self._seed)
        self._replace(monkeypatch, "give_plans", lambda _tiers: None)
        self._replace(monkeypatch, "forget_payments", lambda: 0)
        self._replace(monkeypatch, "is_port_free", lambda _port: True)
        self._replace(monkeypatch, "has_port", self._has_port)
        self._replace(monkeypatch, "fetch", lambda *_: (200, ""))

    def _replace(self, monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[..., Any]) -> None:
        monkeypatch.setattr(startup, name, act)

    def _has_port(self, child: Child) -> bool:
        self.acts.append(f"ask {child.name}")
        return True

    def _seed(self, _file: Path, say: Callable[[str], None]) -> dict[str, list[Any]]:
        self.acts.append("seed")
        if self.waiting:
            say("bob")
        return {"companies": [], "users": []}

    def run(self) -> list[str]:
        self.acts.clear()
        self.screen.said.clear()
        Startup(8451, self._services, self.screen, lambda: None).run()  # type: ignore[arg-type]
        return list(self.acts)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, settings: Settings, tmp_path: Path) -> Stage:
    settings.GATEWAY_STATE_DIR, settings.GATEWAY_DEMO = tmp_path, True
    for name in ("REDIS_URL", "GATEWAY_KAFKA_BOOTSTRAP_SERVERS", "MIDTRANS_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("gateway_project.demo.startup.connections.close_all", lambda: None)
    return Stage(monkeypatch, tmp_path)


def test_first_start_says_what_takes_its_time(stage: Stage) -> None:
    stage.waiting = 43
    acts = stage.run()
    assert acts.index("migrate") < acts.index("start gateway")
    assert stage.screen.said == ["making the tables: 43 steps", "making the login bob"]


def test_second_start_repeats_nothing_and_waits_for_nothing_that_it_need_not(stage: Stage) -> None:
    stage.waiting = 43
    stage.run()
    stage.waiting = 0
    acts = stage.run()
    assert "migrate" not in acts and stage.screen.said == []
    # The gateway is on its way before the demo is looked through, and does not wait for the stand-in for Midtrans.
    assert acts.index("start gateway") < acts.index("seed")
    assert acts.index("start gateway") < acts.index("ask midtrans_sandbox")
    assert acts[:3] == ["start valkey", "start broker", "start midtrans_sandbox"]
    assert acts.index("ask broker") < acts.index("start gateway") < acts.index("start worker")


@pytest.mark.django_db
def test_database_that_has_all_tables_waits_for_none() -> None:
    assert waiting_migrations() == 0


@pytest.mark.django_db
def test_second_look_at_the_demo_writes_nothing_and_hashes_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "demo.json"
    made: list[str] = []
    demo = seed_demo(file, made.append)
    assert made == [user["username"] for user in demo["users"]]
    tiers = {company["slug"]: company["tier"] for company in demo["companies"]}
    give_plans(tiers)

    def fail(*_arguments: object, **_keywords: object) -> None:
        raise AssertionError("a password was hashed")

    monkeypatch.setattr("django.contrib.auth.hashers.check_password", fail)
    monkeypatch.setattr("django.contrib.auth.base_user.check_password", fail)
    monkeypatch.setattr("django.contrib.auth.base_user.make_password", fail)
    monkeypatch.setattr(PBKDF2PasswordHasher, "encode", fail)
    with CaptureQueriesContext(connection) as visits:
        assert seed_demo(file) == demo
        give_plans(tiers)
        forget_payments()
    assert {query["sql"].split()[0] for query in visits} <= {"SELECT", "SAVEPOINT", "RELEASE"}


@pytest.mark.django_db
@pytest.mark.parametrize("change", ["the database", "the file"])
def test_password_that_was_changed_is_noticed(tmp_path: Path, change: str) -> None:
    from tenants.models import User

    file = tmp_path / "demo.json"
    seed_demo(file)
    if change == "the database":
        user = User.objects.get(username="bromo-dewi")
        user.set_password("another long password")
        user.save()
    else:
        known = json.loads(file.read_text())
        known["bromo-dewi"] |= {"password": "another long password", "hash": ""}
        file.write_text(json.dumps(known))
    shown = {user["username"]: user["password"] for user in seed_demo(file)["users"]}["bromo-dewi"]
    assert User.objects.get(username="bromo-dewi").check_password(shown)
