"""What reaches the log of what a client has sent."""

import io
import logging
from collections.abc import Iterator

import pytest
from django.conf import settings
from django.core.exceptions import SuspiciousOperation
from structlog.stdlib import ProcessorFormatter

FORGED = "2026-01-01T00:00:00Z [info     ] company_resumed"


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What a process with these settings writes."""
    config = settings.LOGGING
    form = {name: value for name, value in config["formatters"]["structured"].items() if name != "()"}
    handler = logging.StreamHandler(io.StringIO())
    handler.setFormatter(ProcessorFormatter(**form))
    for name in config["handlers"]["stderr"]["filters"]:
        handler.addFilter(config["filters"][name]["()"]())
    logging.root.addHandler(handler)
    yield handler.stream
    logging.root.removeHandler(handler)


def test_client_forges_no_line_by_what_an_exception_quotes(written: io.StringIO) -> None:
    try:
        raise ValueError(f"no such thing: \n{FORGED}\x1b[2J\x00")
    except ValueError:
        logging.getLogger("gateway").exception("work_failed")
    lines = written.getvalue().splitlines()
    assert any(FORGED in line for line in lines)
    assert not any(line.startswith(FORGED[:4]) and "company_resumed" in line for line in lines)
    assert "\x1b" not in written.getvalue() and "\x00" not in written.getvalue()


def test_suspicious_request_is_one_line_and_an_error_of_ours_a_traceback(written: io.StringIO) -> None:
    refused = [("django.security.DisallowedModelAdminLookup", logging.ERROR), ("django.request", logging.WARNING)]
    for count, (name, level) in enumerate([*refused, ("django.request", logging.ERROR)], start=1):
        try:
            raise SuspiciousOperation("nothing you may ask")
        except SuspiciousOperation:
            logging.getLogger(name).log(level, "refused", exc_info=True)
        lines = written.getvalue().splitlines()
        assert len(lines) == count if count < 3 else "Traceback" in written.getvalue()
