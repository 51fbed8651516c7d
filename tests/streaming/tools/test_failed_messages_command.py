"""``manage.py failed_messages replay`` says "replayed" of what Kafka has, and of nothing else."""

import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from streaming.management.commands import failed_messages as command
from streaming.tools import failed_messages as tools
from streaming.tools.replay import Accepted, Refused
from tests.support.kafka import KafkaBroker
from tests.support.ports import free_port
from tests.support.topics import Topics

GOOD = Accepted("tick-data", b"bob", b"value")


class Topic:
    """What is kept, what today's rules say of it, and what Kafka answers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.verdicts: list[Accepted | Refused] = []
        self.problems: dict[int, str] = {}
        self.published = 0
        monkeypatch.setattr(command, "found", self._found)
        monkeypatch.setattr(command, "judge_again", lambda record: self.verdicts[record.offset()])
        monkeypatch.setattr(command, "publish", self._publish)

    def _found(self, _filters: Any) -> list[Any]:
        return [SimpleNamespace(partition=lambda: 0, offset=lambda n=n: n) for n in range(len(self.verdicts))]

    def _publish(self, accepted: Sequence[Accepted]) -> list[str]:
        first, self.published = self.published, self.published + len(accepted)
        return [self.problems.get(first + place, "") for place in range(len(accepted))]


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> Topic:
    return Topic(monkeypatch)


def replay(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[list[str], str]:
    """Results in order, and the error, "" for none."""
    try:
        call_command("failed_messages", "replay", "--reason", "unknown_type", "--json", *arguments)
        error = ""
    except CommandError as failure:
        error = str(failure)
    return [json.loads(line)["result"] for line in capsys.readouterr().out.splitlines()], error


def test_all_that_kafka_has_is_replayed(topic: Topic, capsys: pytest.CaptureFixture[str]) -> None:
    topic.verdicts = [GOOD, Refused("unknown_type", "still"), GOOD]
    assert replay(capsys) == (["replayed", "refused", "replayed"], "")


@pytest.mark.parametrize("lost", [(0,), (1,), (0, 1)])
def test_message_that_kafka_has_not_confirmed_is_named_and_the_command_fails(
    topic: Topic, capsys: pytest.CaptureFixture[str], lost: tuple[int, ...]
) -> None:
    topic.verdicts = [Refused("unknown_type", "still"), GOOD, GOOD]
    topic.problems = dict.fromkeys(lost, "Local: Message timed out")
    results, error = replay(capsys)
    assert results == ["refused", *("unconfirmed" if n in lost else "replayed" for n in range(2))]
    assert f"not confirmed {len(lost)} messages" in error


def test_nothing_more_is_tried_once_kafka_does_not_answer(topic: Topic, capsys: pytest.CaptureFixture[str]) -> None:
    topic.verdicts = [GOOD] * 2_500
    topic.problems = {999: "no"}
    results, error = replay(capsys)
    assert results == ["replayed"] * 999 + ["unconfirmed"]
    assert "1500 more were not tried" in error


def test_dry_run_publishes_nothing(topic: Topic, capsys: pytest.CaptureFixture[str]) -> None:
    topic.verdicts = [GOOD]
    topic.problems = {0: "no"}
    assert replay(capsys, "--dry-run") == (["valid"], "")
    assert topic.published == 0


def test_kafka_that_is_away_confirms_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.GATEWAY_KAFKA_BOOTSTRAP_SERVERS = f"127.0.0.1:{free_port()}"
    monkeypatch.setattr(tools, "_FLUSH_TIMEOUT", 0.2)
    assert tools.publish([GOOD, GOOD]) == ["Kafka did not confirm it within 0.2 s"] * 2


def test_each_message_has_its_own_report(settings: Settings, kafka: KafkaBroker) -> None:
    topics = Topics(kafka.bootstrap)
    settings.GATEWAY_KAFKA_BOOTSTRAP_SERVERS = kafka.bootstrap
    good = Accepted(topics.routes["tick_data"], b"bob", b"value")
    too_large = Accepted(topics.routes["tick_data"], b"bob", b"x" * 2_000_000)
    first, second, third = tools.publish([good, too_large, good])
    assert (first, third) == ("", "")
    assert "large" in second
