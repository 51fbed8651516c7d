"""Tests of the rooms wait for a condition and never for a time; only what runs beside real processes may."""

import ast

import pytest

from tests.support.skips import ROOT

# Whole processes are watched there for what does not happen, which takes time.
_BESIDE_PROCESSES = ("e2e", "demo", "support", "campaigns", "deploy")
# Seconds. A pause between two looks is shorter; whoever sleeps for longer than the second waits to be ended.
_LOOK, _FOR_EVER = 0.2, 10.0


def naps(source: str) -> list[str]:
    """Where it sleeps for a time that is written there: line and seconds."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        seconds = node.args[0].value
        if name == "sleep" and isinstance(seconds, int | float) and _LOOK <= seconds < _FOR_EVER:
            found.append(f"line {node.lineno}: {seconds} s")
    return found


def test_no_test_of_a_room_sleeps_for_a_time() -> None:
    tests = ROOT / "tests"
    files = [path for path in tests.rglob("*.py") if path.relative_to(tests).parts[0] not in _BESIDE_PROCESSES]
    assert len(files) > 100
    found = {str(path.relative_to(ROOT)): naps(path.read_text()) for path in files}
    wrong = {name: lines for name, lines in found.items() if lines}
    assert wrong == {}, "wait for a condition, or give the code a clock that the test moves"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("time.sleep(2)", 1),
        ("await asyncio.sleep(0.2)", 1),
        ("sleep(1.5)", 1),
        ("await asyncio.sleep(0)", 0),
        ("time.sleep(0.05)", 0),
        ("time.sleep(pause)", 0),
        ("await asyncio.sleep(60)", 0),
    ],
)
def test_sleep_is_found_by_its_length(source: str, found: int) -> None:
    assert len(naps(source)) == found
