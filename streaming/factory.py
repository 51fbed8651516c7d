"""Makes the runtime of a process from Django's settings. Room: streaming."""

import os
import time
from functools import cache
from pathlib import Path

from django.conf import settings

from streaming.access import AccessDirectory
from streaming.admission import AdmissionDesk
from streaming.cluster.cache import AccessCache
from streaming.cluster.link import Link, new_process_id
from streaming.core.policy import ConnectionLimits
from streaming.core.routing import build_routes
from streaming.fleet import Fleet, FleetSettings
from streaming.limits import RuntimeLimits
from streaming.positions import PositionStore
from streaming.registry import Registry
from streaming.runtime import Runtime
from streaming.sinks.config import producer_config
from streaming.sinks.kafka import KafkaSink
from streaming.wire.http import BoundedHttpProtocol
from tenants.tokens import default_keyring

# Set by the parent of several gateway processes for each of its children.
PROCESS_INDEX = "_GATEWAY_PROCESS_INDEX"
SAMPLES_FOLDER = "_GATEWAY_SAMPLES_FOLDER"
# Seconds since the last connection after which no more seem to be on their way.
_CONNECT_PAUSE = 0.05


def _no_one_connects() -> bool:
    """The event loop takes one new connection a round: while many come, as after a restart, rounds must be short."""
    return time.monotonic() - BoundedHttpProtocol.connected_at > _CONNECT_PAUSE


def build_runtime() -> Runtime:
    """Wires everything; nothing is connected or started yet."""
    registry = Registry(settings.GATEWAY_USER_CONNECT_RATE_LIMIT)
    link = Link(settings.REDIS_URL, new_process_id())
    ttl = settings.GATEWAY_ACCESS_CACHE_TTL
    directory = AccessDirectory(
        ttl=ttl, poll_interval=settings.GATEWAY_ACCESS_POLL_INTERVAL, shared=AccessCache(link, ttl)
    )
    servers = settings.GATEWAY_KAFKA_BOOTSTRAP_SERVERS
    fleet = Fleet(
        link,
        registry,
        directory,
        FleetSettings(
            redis_url=settings.REDIS_URL,
            kafka={"bootstrap.servers": servers, **settings.GATEWAY_KAFKA_OPTIONS} if servers else {},
            subscription_topic=settings.GATEWAY_SUBSCRIPTION_TOPIC,
            usage_interval=settings.GATEWAY_USAGE_INTERVAL,
        ),
    )
    positions = PositionStore(
        settings.REDIS_URL,
        registry,
        interval=settings.GATEWAY_POSITION_FLUSH_INTERVAL,
        ttl=settings.GATEWAY_POSITION_TTL,
    )
    desk = AdmissionDesk(
        keyring=default_keyring(),
        directory=directory,
        registry=registry,
        fleet=fleet,
        allowed_origins=frozenset(settings.GATEWAY_ALLOWED_ORIGINS),
        address_rate_limit=settings.GATEWAY_ADDRESS_CONNECT_RATE_LIMIT,
        connection_limit=settings.GATEWAY_PROCESS_CONNECTION_LIMIT,
    )
    folder = os.environ.get(SAMPLES_FOLDER, "")
    runtime = Runtime(
        routes=build_routes(settings.GATEWAY_ROUTES),
        failed_topic=settings.GATEWAY_FAILED_MESSAGES_TOPIC,
        limits=RuntimeLimits(
            ack_interval=settings.GATEWAY_ACK_INTERVAL,
            token_grace=settings.GATEWAY_TOKEN_GRACE,
            ping_interval=settings.GATEWAY_PING_INTERVAL,
            pong_timeout=settings.GATEWAY_PONG_TIMEOUT,
            outbound_timeout=settings.GATEWAY_OUTBOUND_TIMEOUT,
            outbound_max_size=settings.GATEWAY_OUTBOUND_MAX_SIZE,
            drain_timeout=settings.GATEWAY_DRAIN_TIMEOUT,
            drain_spread=settings.GATEWAY_DRAIN_SPREAD,
        ),
        connection_limits=ConnectionLimits(
            message_size_limit=settings.GATEWAY_MESSAGE_SIZE_LIMIT,
            in_flight_limit=settings.GATEWAY_CONNECTION_IN_FLIGHT_LIMIT,
            ping_interval_ms=int(settings.GATEWAY_PING_INTERVAL * 1000),
        ),
        registry=registry,
        positions=positions,
        fleet=fleet,
        desk=desk,
        samples_folder=Path(folder) if folder else None,
        process_index=int(os.environ.get(PROCESS_INDEX, "0")),
    )
    sink = KafkaSink(
        producer_config(
            settings.GATEWAY_KAFKA_BOOTSTRAP_SERVERS, settings.GATEWAY_KAFKA_LINGER, settings.GATEWAY_KAFKA_OPTIONS
        ),
        # First the topic without which a terminal cannot be served.
        [
            settings.GATEWAY_ROUTES[name]
            for name in sorted(settings.GATEWAY_ROUTES, key=lambda name: name != "tick_data")
        ],
        settings.GATEWAY_FAILED_MESSAGES_TOPIC,
        runtime.on_delivered,
        runtime.on_failed,
        runtime.on_room,
        runtime.on_refused,
        in_flight_limit=settings.GATEWAY_PROCESS_IN_FLIGHT_LIMIT,
        in_flight_max_size=settings.GATEWAY_PROCESS_IN_FLIGHT_MAX_SIZE,
        timeout=settings.GATEWAY_BACKEND_TIMEOUT,
        gather=settings.GATEWAY_GATHER_INTERVAL,
        may_rest=_no_one_connects,
        partitions=settings.GATEWAY_TOPIC_PARTITIONS,
        replication=settings.GATEWAY_TOPIC_REPLICATION,
    )
    runtime.attach_sink(sink)
    return runtime


@cache
def process_runtime() -> Runtime:
    """The one runtime of this process, started on first use; call it on the event loop."""
    runtime = build_runtime()
    runtime.start()
    return runtime
