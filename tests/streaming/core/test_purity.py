"""The core waits for nothing and looks at no clock: held by its imports."""

import ast
from pathlib import Path

import pytest

CORE = Path(__file__).resolve().parents[3] / "streaming" / "core"
FORBIDDEN = {"asyncio", "time", "datetime", "threading", "socket", "ssl", "logging", "os", "random", "secrets"}


@pytest.mark.parametrize("path", sorted(CORE.glob("*.py")), ids=lambda path: path.name)
def test_core_module_imports_nothing_that_waits_or_tells_time(path: Path) -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module.partition(".")[0])
    assert imported & FORBIDDEN == set()
