"""How the topics stand, asked of the brokers: leaders, rights, limits. Room: streaming.sinks.

Everything here blocks for seconds and belongs into a thread.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclOperation
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType

from events.kafka import admin_client, make_topics


class TopicState(NamedTuple):
    """``problem``: one word why it takes nothing, "" when it does; ``leaders``: for each partition whether it has one;
    ``limit``: bytes of the largest record batch, None when that may not be known."""

    problem: str
    leaders: tuple[bool, ...]
    limit: int | None


Look = dict[str, TopicState]


def look_at(config: Mapping[str, Any], topics: list[str], partitions: int, replication: int, timeout: float) -> Look:
    """Makes the topics that are missing and says how each one stands; ``timeout``: seconds for each question. Raises
    KafkaException when no broker answers."""
    admin = admin_client(config)
    seen = admin.list_topics(timeout=timeout)
    failed: dict[str, KafkaError] = {}
    if missing := [topic for topic in topics if topic not in seen.topics]:
        failed = make_topics(admin, config, missing, partitions, replication)
        seen = admin.list_topics(timeout=timeout)
    # A broker in memory has no controller: it would be waited for in vain.
    rights, limits = _details(admin, topics, timeout) if seen.controller_id in seen.brokers else ({}, {})
    look: Look = {}
    for topic in topics:
        leaders: tuple[bool, ...] = ()
        if topic in seen.topics:
            parts = seen.topics[topic].partitions
            leaders = tuple(
                number in parts and parts[number].leader >= 0 for number in range(max(parts, default=-1) + 1)
            )
        problem = rights.get(topic, "")
        if not problem and topic in failed and not leaders:
            problem = _word(failed[topic].code())
        if not problem and not leaders:
            problem = "missing"
        look[topic] = TopicState(problem, leaders, limits.get(topic))
    return look


def _word(code: int) -> str:
    return "not_allowed" if code == KafkaError.TOPIC_AUTHORIZATION_FAILED else "missing"


def _details(admin: AdminClient, topics: list[str], timeout: float) -> tuple[dict[str, str], dict[str, int]]:
    """Topics with what is wrong with the right to write them, and the limits that may be read; whatever cannot be
    asked is left out."""
    rights: dict[str, str] = {}
    limits: dict[str, int] = {}
    described = admin.describe_topics(
        TopicCollection(topics), include_authorized_operations=True, request_timeout=timeout
    )
    resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in topics]
    configs = admin.describe_configs(resources, request_timeout=timeout)
    for topic, answer in described.items():
        try:
            operations = answer.result().authorized_operations
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                rights[topic] = "not_allowed"
        else:
            if operations and AclOperation.WRITE not in operations:
                rights[topic] = "not_allowed"
    for resource, answer in configs.items():
        try:
            limits[resource.name] = int(answer.result()["max.message.bytes"].value)
        except (KafkaException, KeyError, TypeError, ValueError):
            continue
    return rights, limits
