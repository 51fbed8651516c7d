"""Settings from the environment: what is wrong is said, with the name and what to do."""

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from gateway_project.env import Env


def test_secret_may_come_from_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    assert Env({"GATEWAY_SECRET_KEY_FILE": str(secret)}).text("GATEWAY_SECRET_KEY") == "s3cret"


def test_file_that_cannot_be_read_is_named_by_its_setting(tmp_path: Path) -> None:
    with pytest.raises(ImproperlyConfigured, match="GATEWAY_SECRET_KEY_FILE"):
        Env({"GATEWAY_SECRET_KEY_FILE": str(tmp_path / "absent")}).text("GATEWAY_SECRET_KEY")


@pytest.mark.parametrize(
    ("text", "seconds"), [("20ms", 0.02), ("0.2ms", 0.0002), ("10s", 10.0), ("5 m", 300.0), ("7d", 604_800.0)]
)
def test_duration_carries_its_unit(text: str, seconds: float) -> None:
    assert Env({"GATEWAY_X": text}).duration("GATEWAY_X", "1s") == pytest.approx(seconds)


@pytest.mark.parametrize(
    "read",
    [
        lambda env: env.duration("GATEWAY_X", "1s"),
        lambda env: env.count("GATEWAY_X", 1),
        lambda env: env.rate("GATEWAY_X", 1.0),
        lambda env: env.decimal("GATEWAY_X", "1"),
        lambda env: env.flag("GATEWAY_X"),
        lambda env: env.table("GATEWAY_X", ""),
        lambda env: env.choice("GATEWAY_X", "a", ("a", "b")),
    ],
)
@pytest.mark.parametrize("text", ["-1", "10 parsecs", "nan"])
def test_value_of_another_kind_is_refused_by_name(read: Callable[[Env], object], text: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="GATEWAY_X"):
        read(Env({"GATEWAY_X": text}))


@pytest.mark.parametrize(("text", "value"), [("11", "11"), ("11.5", "11.5"), ("0", "0"), ("", "12")])
def test_decimal_is_exact(text: str, value: str) -> None:
    assert Env({"GATEWAY_X": text}).decimal("GATEWAY_X", "12") == Decimal(value)


def test_count_is_held_to_its_minimum() -> None:
    assert Env({"GATEWAY_X": "5"}).count("GATEWAY_X", 9, minimum=5) == 5
    with pytest.raises(ImproperlyConfigured, match="at least 5"):
        Env({"GATEWAY_X": "4"}).count("GATEWAY_X", 9, minimum=5)


def test_empty_value_means_the_default() -> None:
    env = Env({"GATEWAY_X": " "})
    assert (env.text("GATEWAY_X", "d"), env.count("GATEWAY_X", 3), env.flag("GATEWAY_X", True)) == ("d", 3, True)


def test_misspelt_name_is_found() -> None:
    env = Env({"GATEWAY_PORT": "1", "GATEWAY_PROT": "1", "PATH": "/bin"})
    env.count("GATEWAY_PORT", 8000)
    assert env.unknown() == ["GATEWAY_PROT"]
