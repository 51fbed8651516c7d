"""What relay and feed share of Kafka: quiet logs, and topics that are there. Room: events."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

log = structlog.get_logger(__name__)

# Seconds.
_TIMEOUT = 5.0
# A topic that was there before had its leaders before, too: whether one is being elected shows soon.
_LEADER_TIMEOUT = 1.0
# librdkafka's settings for a client that is no producer; the rest would only make it warn.
_CLIENT_SETTINGS = ("bootstrap.servers", "security.", "sasl.", "ssl.", "socket.", "client.", "reconnect.")
# Another process was faster, or a broker in memory makes its topics on first use.
_HARMLESS = (KafkaError.TOPIC_ALREADY_EXISTS, KafkaError._TIMED_OUT, KafkaError._UNSUPPORTED_FEATURE)


class _LibraryLog:
    """librdkafka's own lines are for its authors; ours say the same once, in our words."""

    def log(self, _level: int, text: str, *arguments: object) -> None:
        log.debug("librdkafka", text=text % arguments if arguments else text)


LIBRARY_LOG = _LibraryLog()


def admin_client(config: Mapping[str, Any]) -> AdminClient:
    """A client for questions and topics, with the servers and the security of ``config``."""
    client: dict[str, Any] = {name: value for name, value in config.items() if name.startswith(_CLIENT_SETTINGS)}
    client["logger"] = LIBRARY_LOG
    return AdminClient(client)


def make_topics(
    client: Producer | AdminClient, config: Mapping[str, Any], topics: Iterable[str], partitions: int, replication: int
) -> dict[str, KafkaError]:
    """Makes the topics that are missing; those that are not there afterwards, or have a partition without a leader,
    each with its reason. Blocks for seconds.

    Raises KafkaException when no broker answers.
    """
    wanted = list(topics)
    # Asking for all topics, not for one by name, creates none by accident where the broker would make them on demand.
    known = client.list_topics(timeout=_TIMEOUT).topics
    missing = [topic for topic in wanted if topic not in known]
    failed: dict[str, KafkaError] = {}
    if missing:
        admin = client if isinstance(client, AdminClient) else admin_client(config)
        new = [NewTopic(topic, num_partitions=partitions, replication_factor=replication) for topic in missing]
        for topic, future in admin.create_topics(new, operation_timeout=_TIMEOUT, request_timeout=_TIMEOUT).items():
            try:
                future.result()
            except KafkaException as error:
                if error.args[0].code() not in _HARMLESS:
                    failed[topic] = error.args[0]
    now = time.monotonic()
    for topic in wanted:
        if topic not in failed:
            # One after the other, but no topic adds to what another one has been waited for.
            deadline = now + (_TIMEOUT if topic in missing else min(_TIMEOUT, _LEADER_TIMEOUT))
            if (reason := _await_topic(client, topic, deadline)) is not None:
                failed[topic] = reason
    return failed


def _await_topic(client: Producer | AdminClient, topic: str, deadline: float) -> KafkaError | None:
    """Until each partition has a leader; why not, when that takes too long or waiting does not help."""
    while True:
        found = client.list_topics(topic, timeout=_TIMEOUT).topics[topic]
        if found.error is None and found.partitions and all(p.leader >= 0 for p in found.partitions.values()):
            return None
        is_forbidden = found.error is not None and found.error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
        if is_forbidden or time.monotonic() > deadline:
            return found.error or KafkaError(KafkaError.LEADER_NOT_AVAILABLE)
        time.sleep(0.05)
