"""The image: what its file copies is all that production needs, and nothing of a developer's."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.conftest import DEPLOY
from tests.support.gateway import ROOT
from tests.support.production import production_environment
from tests.support.tools import judge, python_tool

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


def test_image_has_all_that_the_commands_import(image: Path, tmp_path: Path) -> None:
    """With the settings of production and without the rest of the repository."""
    environment = production_environment(tmp_path / "state") | {"PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTHONPATH", None)
    script = "\n".join((
        "import os, sys",
        "os.environ['DJANGO_SETTINGS_MODULE'] = 'gateway_project.settings'",
        "sys.path += ['clients/python']",
        "import django; django.setup()",
        "from django.core.management import get_commands, load_command_class",
        "[load_command_class(app, name) for name, app in get_commands().items()]",
        "import gateway_project.asgi, gateway_project.worker, streaming.tools.simulator",
    ))  # fmt: skip
    subprocess.run([sys.executable, "-c", script], cwd=image, env=environment, check=True, timeout=120)
    collect = [sys.executable, "manage.py", "collectstatic", "--noinput", "-v0"]
    # As at the build, where there are no secrets.
    bare = {name: value for name, value in environment.items() if not name.startswith(("GATEWAY_", "MIDTRANS_"))}
    subprocess.run(collect, cwd=image, env={**bare, "GATEWAY_ENVIRONMENT": "production"}, check=True, timeout=120)
    assert (image / "staticfiles/staticfiles.json").exists()
