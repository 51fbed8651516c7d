"""The committed code of the schemas is what the schemas generate, here and in the client library."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.gateway import ROOT

SCHEMAS = sorted((ROOT / "proto" / "gateway" / "v1").glob("*.proto"))
CLIENT_PB = ROOT / "clients" / "python" / "trading_gateway_client" / "pb"


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated")
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", ".", f"--python_out={folder}", f"--pyi_out={folder}"]
    subprocess.run([*command, *(str(path.relative_to(ROOT)) for path in SCHEMAS)], cwd=ROOT, check=True)
    return folder / "proto" / "gateway" / "v1"


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda path: path.stem)
@pytest.mark.parametrize("suffix", ["_pb2.py", "_pb2.pyi"])
def test_generated_code_is_up_to_date(generated: Path, schema: Path, suffix: str) -> None:
    fresh = (generated / f"{schema.stem}{suffix}").read_text()
    assert (schema.parent / f"{schema.stem}{suffix}").read_text() == fresh, "run 'make proto'"


@pytest.mark.parametrize("path", sorted(CLIENT_PB.glob("*_pb2.py*")), ids=lambda path: path.name)
def test_client_carries_the_same_code(generated: Path, path: Path) -> None:
    assert path.read_text() == (generated / path.name).read_text(), "run 'make proto'"
