"""The page for authors of terminals says what the code does: codes, types, fields, limits."""

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from google.protobuf.descriptor import FieldDescriptor

from proto.gateway.v1 import control_pb2, envelope_pb2, payloads_pb2
from streaming.core.codes import ACTIONS, KEPT_REFUSALS, CloseCode, NackAction, NackCode, NoticeCode
from streaming.core.control import CONTROL_TYPES
from streaming.core.payloads import ATTRIBUTE_LIMIT, SYMBOL_LIMIT
from streaming.core.policy import ConnectionLimits
from streaming.core.refused import REFUSED_LIMIT
from streaming.core.routing import build_routes
from streaming.refusals import REFUSALS
from tests.docs.page import Page, bare

_ROOT = Path(__file__).resolve().parents[2]
_PAGE = Page("docs/protocol.md")
_TYPES = {
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_DOUBLE: "double",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_UINT64: "uint64",
}


def _type_of(field: FieldDescriptor) -> str:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return "map of string to string"
    if field.message_type is not None:
        name = field.message_type.name
    elif field.enum_type is not None:
        name = field.enum_type.name
    else:
        name = _TYPES[field.type]
    return f"{name} (repeated)" if field.is_repeated else name


def _message_tables() -> Iterator[tuple[str, Any]]:
    """Every table that describes a message, with the message."""
    modules = (control_pb2, payloads_pb2)
    for heading in _PAGE.headed("`"):
        name = bare(heading.rpartition("→ ")[2])
        found = [module.DESCRIPTOR.message_types_by_name.get(name) for module in modules]
        yield heading, next(message for message in found if message is not None)
    yield "The envelope", envelope_pb2.MessageEnvelope.DESCRIPTOR


_MESSAGES = dict(_message_tables())


@pytest.mark.parametrize("heading", _MESSAGES)
def test_table_of_a_message_has_its_fields_numbers_and_types(heading: str) -> None:
    written = [(bare(row["field"]), int(row["number"]), row["type"]) for row in _PAGE.table(heading, "field")]
    assert written == [(field.name, field.number, _type_of(field)) for field in _MESSAGES[heading].fields]


def test_every_message_has_its_table() -> None:
    headings = _PAGE.headed("`")
    types = {bare(heading.partition(" →")[0]) for heading in headings if "→" in heading}
    routed = set(build_routes({name: name for name in settings.GATEWAY_ROUTES}))
    answers = {f"gateway.{name}" for name in ("welcome", "ack", "nack", "notice", "policy", "pong", "disconnect")}
    assert types == routed | set(CONTROL_TYPES) | answers


def test_close_codes_are_those_of_the_registry() -> None:
    written = [
        (int(row["code"]), bare(row["name"]), row["reconnect"]) for row in _PAGE.table("The end of a connection")
    ]
    own = [(int(code), code.name.lower(), "yes" if code.reconnect else "no") for code in CloseCode]
    assert written == [(code, name, "as you like" if code == CloseCode.NORMAL else back) for code, name, back in own]


def test_nack_codes_are_those_of_the_registry_with_what_may_be_done() -> None:
    written = [(bare(row["code"]), bare(row["action"]), row["kept"]) for row in _PAGE.table("Refusals", "code")]
    assert written == [(code.value, ACTIONS[code].name, "yes" if code in KEPT_REFUSALS else "no") for code in NackCode]


def test_actions_are_those_of_the_registry_and_of_the_schema() -> None:
    written = [(bare(row["action"]), int(row["number"])) for row in _PAGE.table("Refusals", "number")]
    assert written == [(action.name, action.value) for action in NackAction]
    assert {f"NACK_ACTION_{name}": number for name, number in written} == {
        name: number for name, number in control_pb2.NackAction.items() if number
    }


def test_notices_are_those_of_the_registry() -> None:
    assert [bare(row["notice"]) for row in _PAGE.table("`gateway.notice` → `Notice`", "notice")] == list(NoticeCode)


def _codes_raised(exception: str, *files: str) -> set[tuple[int, str]]:
    """(status, code) of every ``raise``d or made ``exception`` whose two first arguments are literals."""
    found = set()
    for name in files:
        for node in ast.walk(ast.parse((_ROOT / name).read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or getattr(node.func, "id", "") != exception:
                continue
            first, *rest = node.args
            if isinstance(first, ast.Constant) and rest and isinstance(rest[0], ast.Constant):
                found.add((int(str(first.value)), str(rest[0].value)))
    return found


def test_refusals_of_a_connect_are_those_that_the_code_can_give() -> None:
    written = {(int(row["status"]), bare(row["code"])) for row in _PAGE.table("Refused before it is open")}
    files = [str(path.relative_to(_ROOT)) for path in (_ROOT / "streaming").rglob("*.py")]
    raised = _codes_raised("AdmissionRefused", *files)
    raised |= {(status, code) for code, (status, _, _) in REFUSALS.items()}
    raised |= {(401, "token_expired"), (401, "token_invalid")}  # tenants.tokens.TokenError
    assert written == raised


def test_final_refusals_of_a_connect_are_named_so() -> None:
    for row in _PAGE.table("Refused before it is open"):
        is_final = row["do"].startswith("stop")
        assert is_final == (row["status"] in ("402", "403")), row


def test_limits_of_the_plans_are_those_of_the_product() -> None:
    rows = {row["limit"]: row for row in _PAGE.table("Limits", "FREE")}
    for tier in import_module("tenants.migrations.0002_add_tiers").TIERS:
        column = {name: row[tier["code"]] for name, row in rows.items()}
        assert column == {
            "messages a second a user": f"{tier['message_rate_limit']:g}",
            "connections a user": str(tier["connection_limit"]),
            "active pairs a user": str(tier["pair_limit"]),
            "MT5 accounts a user": str(tier["user_account_limit"]),
            "data a month a company, GiB": str(tier["monthly_data_limit"] // 1024**3),
            "trading signals": "yes" if tier["has_signals"] else "no",
            "alerts": "yes" if tier["has_alerts"] else "no",
        }


def test_limits_of_a_connection_are_the_defaults() -> None:
    written = {row["limit"]: float(row["default"]) for row in _PAGE.table("Limits", "default")}
    assert written == {
        "bytes of one message": settings.GATEWAY_MESSAGE_SIZE_LIMIT,
        "messages of one connection without an answer": settings.GATEWAY_CONNECTION_IN_FLIGHT_LIMIT,
        "fragments of one message": settings.GATEWAY_FRAGMENT_LIMIT,
        "WebSocket pings and pongs a second": settings.GATEWAY_CONTROL_FRAME_RATE_LIMIT,
        "seconds until a connection without pong or data ends, after a ping": settings.GATEWAY_PONG_TIMEOUT,
        "refused sequences that a stream remembers": REFUSED_LIMIT,
        "days that a stream's position is remembered": settings.GATEWAY_POSITION_TTL / 86_400,
    }
    assert written["bytes of one message"] == ConnectionLimits().message_size_limit
    assert f"at most {SYMBOL_LIMIT} characters" in _PAGE.text
    assert f"at most {ATTRIBUTE_LIMIT}" in _PAGE.text


def test_topics_are_those_of_the_routes() -> None:
    written = {bare(row["topic"]) for row in _PAGE.table("What a consumer of the topics finds")}
    assert written == {*settings.GATEWAY_ROUTES.values(), settings.GATEWAY_FAILED_MESSAGES_TOPIC}
