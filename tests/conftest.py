"""The real parts that tests stand on, each started at its first use and ended with the run."""

import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

# First: the other one imports it in a circle, which only goes well this way round. On PostgreSQL nobody has done so.
from django.db.backends.sqlite3 import base as _base  # noqa: F401  # isort: skip
from django.db.backends.sqlite3.base import DatabaseWrapper
from django.utils import translation

from tests.support.gateway import Gateway, clean_environment, manage, seed_template
from tests.support.kafka import WITH_RULES, KafkaBroker
from tests.support.order import shuffled
from tests.support.skips import refuse_skip
from tests.support.valkey import Valkey


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shuffle", type=int, metavar="SEED", help="run files, and the tests of each, in another order")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    seed = config.getoption("--shuffle")
    if seed is not None:
        items[:] = shuffled(items, seed, lambda item: item.path)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    refuse_skip(report)
    return report


@pytest.fixture(autouse=True)
def english() -> None:
    """A page in Indonesian leaves its thread speaking Indonesian."""
    translation.deactivate()


@pytest.fixture(scope="session", autouse=True)
def clean_flush() -> Iterator[None]:
    """Tests that commit are cleaned up after by deleting all rows of the test's SQLite. The triggers of the append-only
    logs would refuse that, and what the migrations have put there (tiers, plans) must be back for the next test: files
    run in any order."""
    with pytest.MonkeyPatch.context() as patch:
        operations = DatabaseWrapper.ops_class
        original = operations.execute_sql_flush

        def execute(self: Any, statements: Any) -> None:
            with self.connection.cursor() as cursor:
                cursor.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
                rules = cursor.fetchall()
                for name, _ in rules:
                    cursor.execute(f"DROP TRIGGER {name}")
                try:
                    original(self, statements)
                finally:
                    for _, rule in rules:
                        cursor.execute(rule)
            contents = getattr(self.connection, "_test_serialized_contents", "")
            if contents:
                self.connection.creation.deserialize_db_from_string(contents)

        patch.setattr(operations, "execute_sql_flush", execute)
        yield


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A real Apache Kafka that all tests share; nobody may stop it."""
    broker = KafkaBroker(tmp_path_factory.mktemp("kafka"), settings=WITH_RULES)
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[KafkaBroker]:
    """A real Apache Kafka for one test, which may kill it."""
    broker = KafkaBroker(tmp_path / "own-kafka", settings=WITH_RULES)
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A real Valkey that all tests share."""
    server = Valkey()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    """A real Valkey for one test, which may stop it."""
    server = Valkey()
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def empty_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with a migrated database and nothing else, to be copied."""
    folder = tmp_path_factory.mktemp("empty")
    manage("migrate", "-v0", environment=clean_environment(folder))
    return folder


@pytest.fixture(scope="session")
def state_template(empty_state: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with the demo and 210 bench users, to be copied."""
    folder = tmp_path_factory.mktemp("template") / "state"
    shutil.copytree(empty_state, folder)
    seed_template(folder, users=210)
    return folder


@pytest.fixture
def make_gateway(
    state_template: Path, tmp_path: Path, kafka: KafkaBroker, valkey: Valkey
) -> Iterator[Callable[..., Gateway]]:
    """Makes gateways on the shared Kafka and Valkey; keyword arguments are settings and win over those."""
    made: list[Gateway] = []
    valkey.forget()

    def make(**settings: str) -> Gateway:
        values = {
            "GATEWAY_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
            "REDIS_URL": valkey.url,
            "GATEWAY_USER_CONNECT_RATE_LIMIT": "200",
            # Terminals of tests answer pings only while the test reads from them.
            "GATEWAY_PONG_TIMEOUT": "120s",
            **settings,
        }
        gateway = Gateway(state_template, tmp_path, **values)
        made.append(gateway)
        return gateway

    yield make
    for gateway in made:
        if gateway.process is not None:
            gateway.stop()


@pytest.fixture
def gateway(make_gateway: Callable[..., Gateway]) -> Gateway:
    """One that is ready."""
    return make_gateway().start()
