"""A test that does not run is a failure, unless a short list says where it runs instead (support: skips)."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.skips import ALLOWED, ON_POSTGRESQL, ROOT, refuse_skip

_CONFTEST = "from tests.conftest import pytest_make_collect_report, pytest_runtest_makereport"
_SILENT = {
    "mark": "import pytest\n@pytest.mark.skip(reason='later')\ndef test_it() -> None: ...",
    "call": "import pytest\ndef test_it() -> None: pytest.skip('no time')",
    "fixture": "import pytest\n@pytest.fixture\ndef b(): pytest.skip('no')\ndef test_it(b) -> None: ...",
    "module": "import pytest\npytest.importorskip('a_package_that_nobody_has')\ndef test_it() -> None: ...",
    "expected": "import pytest\n@pytest.mark.xfail\ndef test_it() -> None: assert False",
}


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-c", str(directory / "pytest.ini"), str(directory), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_whoever_skips_for_a_reason_of_their_own_turns_the_run_red(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nDJANGO_SETTINGS_MODULE = tests.settings\n")
    (tmp_path / "conftest.py").write_text(_CONFTEST)
    for name, text in _SILENT.items():
        (tmp_path / f"test_{name}.py").write_text(text)
    (tmp_path / "test_fine.py").write_text("def test_it() -> None: ...")
    done = run(tmp_path, "-rA", "--continue-on-collection-errors")
    assert done.returncode == 1, done.stdout + done.stderr
    verdicts = re.findall(r"^(\w+) \S*test_(\w+)\.py", done.stdout, re.MULTILINE)
    assert {name for verdict, name in verdicts if verdict in ("FAILED", "ERROR")} == set(_SILENT), done.stdout
    assert {name for verdict, name in verdicts if verdict not in ("FAILED", "ERROR")} == {"fine"}, done.stdout


@pytest.mark.parametrize(("file", "outcome"), [("tests/billing/test_races.py", "skipped"), ("tests/x.py", "failed")])
def test_allowed_reason_holds_for_the_files_that_run_elsewhere_only(
    file: str, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ALLOWED, "no locks", frozenset({"tests/billing/test_races.py"}))
    longrepr = (file, 1, "Skipped: no locks")
    report = pytest.TestReport(f"{file}::test_it", (file, 1, "test_it"), {}, "skipped", longrepr, "setup")
    refuse_skip(report)
    assert report.outcome == outcome


def test_each_list_of_files_for_postgresql_is_run_by_the_file_that_it_is_for() -> None:
    for runner, paths in ON_POSTGRESQL.items():
        assert "run_on_postgresql(postgres.url, __file__)" in (ROOT / runner).read_text(), runner
        for path in paths:
            assert (ROOT / path).exists(), path
