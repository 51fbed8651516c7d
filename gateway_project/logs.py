"""Structured logging: one event a line, JSON in production. Room: gateway_project.

Tokens, keys and payloads are never logged: log identifiers, codes and counts.
"""

import logging
import re
from typing import Any

import structlog
from structlog.typing import EventDict, WrappedLogger

# A value a client had a say in is cut here, so that one bad frame cannot fill a disk.
_VALUE_LIMIT = 500


# The last part of a link that lets a password be chosen: whoever reads a log must not be able to follow it.
_LINK_TOKEN = re.compile(r"(/(?:invitations|password-reset)/[^/\s]+/)[^/\s?\"']+")


def _without_link_tokens(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Django names the path of each request that it could not answer."""
    for key, value in event.items():
        if isinstance(value, str) and ("/invitations/" in value or "/password-reset/" in value):
            event[key] = _LINK_TOKEN.sub(r"\1***", value)
    return event


def _plain_values(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Cuts long values and takes control characters out, so that no client can forge or break a log line."""
    for key, value in event.items():
        if key == "exception":
            # Its last line may quote a client; set off, no line of it can be taken for an event of its own.
            lines = str(value).split("\n")
            event[key] = "\n".join("  " + "".join(c if c.isprintable() else "?" for c in line) for line in lines)
        elif isinstance(value, str) and (len(value) > _VALUE_LIMIT or not value.isprintable()):
            event[key] = "".join(c if c.isprintable() else "?" for c in value[:_VALUE_LIMIT])
    return event


class _NoTraceOfRefusals(logging.Filter):
    """What Django refuses, a warning or suspicious, is a line: whoever sends it must not fill the disk with a traceback
    each."""

    def filter(self, record: logging.LogRecord) -> bool:
        is_warning = record.name == "django.request" and record.levelno < logging.ERROR
        if is_warning or record.name.startswith("django.security."):
            record.exc_info = None
        return True


class _NotReadiness(logging.Filter):
    """A process that is not ready says so to whoever asks, several times a second: an answer, not an error."""

    def filter(self, record: logging.LogRecord) -> bool:
        return getattr(getattr(record, "request", None), "path", "") != "/readyz"


def logging_config(form: str, level: str) -> dict[str, Any]:
    """The ``dictConfig`` for the whole process; also configures structlog, so call it once from the settings."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.format_exc_info,
        _without_link_tokens,
        _plain_values,
    ]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    renderer: Any = (
        structlog.processors.JSONRenderer() if form == "json" else structlog.dev.ConsoleRenderer(colors=False)
    )
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "structured": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": shared,
                "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            }
        },
        "filters": {"not_readiness": {"()": _NotReadiness}, "no_trace_of_refusals": {"()": _NoTraceOfRefusals}},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "formatter": "structured",
                "filters": ["no_trace_of_refusals"],
            }
        },
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            "django.server": {"handlers": [], "propagate": True, "level": "WARNING"},
            "django": {"handlers": [], "propagate": True, "level": "INFO"},
            # Whoever scans the port sends any Host: not worth a traceback each.
            "django.security.DisallowedHost": {"level": "CRITICAL"},
            # Names and addresses of each failure; our own events say what matters.
            "axes": {"level": "ERROR"},
            "django.request": {"filters": ["not_readiness"]},
            # One line a connection at INFO would be a denial of service of its own; our own events say more.
            "uvicorn.error": {"level": "WARNING"},
            "uvicorn.access": {"level": "WARNING"},
            "websockets": {"level": "WARNING"},
        },
    }
