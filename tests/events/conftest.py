"""Fixtures of the events room."""

import pytest

from tests.events.cast import new_topic


@pytest.fixture
def topic() -> str:
    """A topic of the test's own that nobody has made."""
    return new_topic()
