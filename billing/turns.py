"""One turn of a job of the worker: many rows, one after the other. Room: billing."""

import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import structlog

log = structlog.get_logger(__name__)

# Seconds: other jobs wait for the end of a turn, and Midtrans and mail servers may be slow.
_TURN = 20.0
_Key = TypeVar("_Key")


def in_turn(keys: Iterable[_Key], act: Callable[[_Key], bool]) -> int:
    """Acts on each until the turn is over; how many did something. One that fails is logged and stops no other."""
    until, done = time.monotonic() + _TURN, 0
    for key in list(keys):
        if time.monotonic() > until:
            break
        try:
            done += act(key)
        except Exception:
            log.exception("billing_step_failed", step=act.__name__.strip("_"), key=str(key))
    return done
