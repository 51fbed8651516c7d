"""What a broker with an authorizer refuses, told through its own interface."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclBindingFilter, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType


def _rule(topic: str, operation: AclOperation, permission: AclPermissionType) -> AclBinding:
    return AclBinding(ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, "User:*", "*", operation, permission)


def deny(bootstrap: str, topic: str, operation: AclOperation = AclOperation.WRITE) -> None:
    """Everybody may do everything with the topic but this."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    rules = [
        _rule(topic, AclOperation.ALL, AclPermissionType.ALLOW),
        _rule(topic, operation, AclPermissionType.DENY),
    ]
    for done in admin.create_acls(rules, request_timeout=10).values():
        done.result()


def forget_rules(bootstrap: str, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    anybody: Any = None
    pattern = AclBindingFilter(
        ResourceType.TOPIC,
        topic,
        ResourcePatternType.LITERAL,
        anybody,
        anybody,
        AclOperation.ANY,
        AclPermissionType.ANY,
    )
    for done in admin.delete_acls([pattern], request_timeout=10).values():
        done.result()


@contextmanager
def denied(bootstrap: str, topic: str, operation: AclOperation = AclOperation.WRITE) -> Iterator[None]:
    deny(bootstrap, topic, operation)
    try:
        yield
    finally:
        forget_rules(bootstrap, topic)
