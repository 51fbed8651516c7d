"""The dead-letter queue as an operator works with it. Room: streaming.tools."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from django.conf import settings

from streaming.access import policy_of
from streaming.core.routing import build_routes
from streaming.sinks.config import producer_config
from streaming.tools.records import describe, headers_of, text_of
from streaming.tools.replay import Accepted, Refused, judge
from streaming.tools.topic_reader import TopicReader
from tenants.access import terminal_access

_FLUSH_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class Filters:
    """Empty ones let everything pass."""

    reason: str = ""
    user: str = ""
    company: str = ""

    def matches(self, record: Message) -> bool:
        headers = headers_of(record)
        return (
            (not self.reason or headers.get("reason") == self.reason)
            and (not self.user or headers.get("user_id") == self.user)
            and (not self.company or headers.get("company_id") == self.company)
        )


def place_of(record: Message) -> str:
    """``partition:offset``, the name of a failed message."""
    return f"{record.partition()}:{record.offset()}"


def parse_place(text: str) -> tuple[int, int]:
    """Raises ValueError."""
    partition, separator, offset = text.partition(":")
    if not separator or not partition.isdecimal() or not offset.isdecimal():
        raise ValueError(f"{text!r} is not a place: use PARTITION:OFFSET as list prints it")
    return int(partition), int(offset)


def found(filters: Filters) -> Iterator[Message]:
    """Everything in the topic that matches, one partition after another; raises TopicUnreadable."""
    with TopicReader(settings.GATEWAY_FAILED_MESSAGES_TOPIC) as reader:
        yield from (record for record in reader.stored() if filters.matches(record))


def fetch(places: list[tuple[int, int]]) -> list[Message]:
    """Raises TopicUnreadable for a place that the topic does not hold."""
    with TopicReader(settings.GATEWAY_FAILED_MESSAGES_TOPIC) as reader:
        return [reader.at(partition, offset) for partition, offset in places]


def summary(record: Message) -> dict[str, Any]:
    return {"place": place_of(record), **headers_of(record), "size": len(record.value() or b"")}


def details(record: Message) -> dict[str, Any]:
    """Everything that is known of it, the frame itself as text where it is text."""
    described = {"place": place_of(record), **describe(record)}
    value = record.value() or b""
    if value.lstrip().startswith(b"{"):
        described["text"] = text_of(value)
    return described


def judge_again(record: Message) -> Accepted | Refused:
    """By the rules and the user's limits of today."""
    headers = headers_of(record)
    access = terminal_access(headers.get("user_id", ""))
    if access is None or access.company_id != headers.get("company_id"):
        return Refused("user_unknown", "the user is gone or belongs to another company now")
    if access.refusal:
        return Refused(access.refusal, "the user may not send now")
    received_at = headers.get("received_at", "")
    return judge(
        record.value() or b"",
        policy=policy_of(access),
        session_id=headers.get("session_id", ""),
        received_at=int(received_at) if received_at.isdecimal() else record.timestamp()[1] * 1000,
        routes=build_routes(settings.GATEWAY_ROUTES),
        failed_topic=settings.GATEWAY_FAILED_MESSAGES_TOPIC,
        account=headers.get("account", ""),
    )


def publish(accepted: Sequence[Accepted]) -> list[str]:
    """For each message "" when Kafka has it, or why that is not known; after ``_FLUSH_TIMEOUT`` seconds at most."""
    config = producer_config(
        settings.GATEWAY_KAFKA_BOOTSTRAP_SERVERS, settings.GATEWAY_KAFKA_LINGER, settings.GATEWAY_KAFKA_OPTIONS
    )
    producer = Producer({**config, "log_level": 2})
    problems = [f"Kafka did not confirm it within {_FLUSH_TIMEOUT:g} s"] * len(accepted)
    for place, message in enumerate(accepted):
        report = partial(_note_report, problems, place)
        try:
            producer.produce(message.topic, key=message.key, value=message.value, on_delivery=report)
        except (BufferError, KafkaException) as error:
            problems[place] = f"it was not handed over: {error}"
        producer.poll(0)
    producer.flush(_FLUSH_TIMEOUT)
    return problems


def _note_report(problems: list[str], place: int, error: KafkaError | None, _record: Message) -> None:
    problems[place] = "" if error is None else error.str()
