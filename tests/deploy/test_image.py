"""The image: what its file copies is all that production needs, and nothing of a developer's."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.conftest import DEPLOY
from tests.support.gateway import ROOT
from tests.support.tools import judge, python_tool

_IMPORT_ALL = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "gateway_project.settings"
sys.path.append("clients/python")
import django; django.setup()
from django.core.management import call_command, get_commands, load_command_class
for name, app in get_commands().items():
    load_command_class(app, name)
import gateway_project.asgi, gateway_project.worker, streaming.tools.simulator
assert os.getcwd() in gateway_project.__file__
call_command("collectstatic", interactive=False, verbosity=0)
"""
_COPY = re.compile(r"^COPY (?!--from)(.+) (\S+)$", re.MULTILINE)


def copied() -> list[tuple[Path, Path]]:
    """Sources in the repository and places in the image, relative to both."""
    pairs = []
    for match in _COPY.finditer((DEPLOY / "Dockerfile").read_text()):
        for source in match[1].split():
            target = Path(match[2])
            pairs.append((Path(source), target / source if match[2].endswith("/") else target))
    return [(source, target) for source, target in pairs if not target.is_absolute()]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The folder /app as the file makes it."""
    folder = tmp_path / "app"
    for source, target in copied():
        place = folder / target
        place.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, place)
    return folder


def test_linter_finds_the_file_good() -> None:
    judge(python_tool("hadolint"), str(DEPLOY / "Dockerfile"))


def test_what_is_copied_is_sent_to_the_build_and_secrets_are_not() -> None:
    lines = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    sent = {line.removeprefix("!") for line in rules if line.startswith("!")}
    assert sent == {str(source) for source, _ in copied()} | {"requirements.txt"}


def test_image_runs_as_nobody_in_particular_and_hears_the_signal_to_stop() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    last_stage = text[text.rindex("\nFROM ") :]
    assert re.search(r"^USER (\d+)", last_stage, re.MULTILINE)[1] != "0"  # type: ignore[index]
    # A shell between would keep SIGTERM to itself.
    assert re.search(r'^ENTRYPOINT \["python", "manage.py"\]$', last_stage, re.MULTILINE)
    assert "HEALTHCHECK" in last_stage
    assert not re.search(r"^(ENV|ARG).*(PASSWORD|SECRET|TOKEN|KEYS)", text, re.MULTILINE)


def test_image_has_all_that_the_commands_import(image: Path) -> None:
    """Without the rest of the repository, and as at the build, where there are no secrets."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GATEWAY_", "DJANGO_", "PYTHON"))}
    environment = {**kept, "GATEWAY_ENVIRONMENT": "production", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT_ALL], cwd=image, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert (image / "staticfiles/staticfiles.json").exists()
