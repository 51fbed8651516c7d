"""Setting up shows that it goes on, and leaves nothing behind in the sources."""

import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gateway_project.install import Said, main, show
from tests.support.gateway import ROOT

PIP = """Collecting Django==5.2.19 (from -r requirements.txt (line 6))
  Downloading django-5.2.19-py3-none-any.whl.metadata (4.0 kB)
Collecting asgiref>=3.8.1 (from Django==5.2.19->-r requirements.txt (line 6))
  Using cached asgiref-3.11.0-py3-none-any.whl.metadata (9.3 kB)
WARNING: the index is slow
Installing collected packages: asgiref, Django
Successfully installed Django-5.2.19 asgiref-3.11.0
"""


def test_newcomer_reads_a_line_for_each_package() -> None:
    said: list[str] = []
    kept = show(PIP.splitlines(keepends=True), said.append)
    assert [line.split()[:3] for line in said] == [
        ["1", "Django==5.2.19"],
        ["2", "asgiref>=3.8.1"],
        ["WARNING:", "the", "index"],
        ["unpacking", "2", "packages"],
    ]
    assert kept == PIP.splitlines()


def test_newcomer_reads_that_a_long_silence_is_work(capsys: pytest.CaptureFixture[str]) -> None:
    said = Said(quiet=0.0)
    said("unpacking 50 packages")
    text = ""
    while text.count("unpacking 50 packages") < 3:
        text += capsys.readouterr().out
        threading.Event().wait(0.02)
    said.end()
    assert "… unpacking 50 packages" in text


def test_newcomer_reads_what_pip_says_of_a_failure(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"{tmp_path}/no-such-package\n")
    assert main(str(requirements)) != 0
    assert "no-such-package" in capfd.readouterr().out


@pytest.mark.parametrize("target", ["$(VENV)/.run-stamp", "$(VENV)/.dev-stamp", "$(VENV)/.bench-stamp"])
def test_each_installation_says_what_it_does(target: str) -> None:
    rule = re.search(rf"^{re.escape(target)}:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)
    assert rule is not None
    assert '@echo "Installing' in rule[1] and "gateway_project/install.py" in rule[1]
    assert "--quiet" not in rule[1]


def test_installing_the_client_leaves_nothing_in_its_folder(tmp_path: Path) -> None:
    sources = tmp_path / "python"
    ignored = shutil.ignore_patterns("__pycache__", "build", "*.egg-info", ".*_cache")
    shutil.copytree(ROOT / "clients" / "python", sources, ignore=ignored)
    before = sorted(path.relative_to(sources) for path in sources.rglob("*"))
    switches = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--no-compile"]
    target = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", *switches, "--target", str(target), str(sources)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    assert sorted(path.relative_to(sources) for path in sources.rglob("*")) == before
    # All of it has arrived, with what type checkers look for.
    package = target / "trading_gateway_client"
    wanted = {path.relative_to(sources) for path in (sources / "trading_gateway_client").rglob("*") if path.is_file()}
    assert {path.relative_to(target) for path in package.rglob("*") if path.is_file()} == wanted
    assert (package / "py.typed").exists() and list((package / "pb").glob("*.pyi"))
