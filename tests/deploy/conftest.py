"""The folder ``deploy/`` as an operator has it, with the example of its settings filled in."""

import base64
import re
import secrets
import shutil
import uuid
from pathlib import Path

import pytest

from tests.support.gateway import ROOT

DEPLOY = ROOT / "deploy"
_LINE = re.compile(r"^#?([A-Z][A-Z0-9_]+)=(.*)$", re.MULTILINE)


def settings_of(text: str) -> dict[str, str]:
    """Names and values of a file of settings, those in comments too; without quotes."""
    return {match[1]: match[2].strip("'") for match in _LINE.finditer(text)}


@pytest.fixture(scope="session")
def filled() -> dict[str, str]:
    """What an operator has filled in: every line of the example that holds a value now."""
    values = settings_of("\n".join(_lines_in_use()))
    values |= {
        "POSTGRES_PASSWORD": secrets.token_hex(24),
        "VALKEY_PASSWORD": secrets.token_hex(24),
        "KAFKA_CLUSTER_ID": base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("="),
        "GATEWAY_SECRET_KEY": base64.b64encode(secrets.token_bytes(48)).decode(),
        "GATEWAY_JWT_KEYS": f"first:HS256:{base64.b64encode(secrets.token_bytes(32)).decode()}",
        "GATEWAY_METRICS_TOKEN": secrets.token_hex(24),
        "GATEWAY_EMAIL_URL": "smtp+tls://gateway:secret@mail.example:587",
        "MIDTRANS_SERVER_KEY": f"Mid-server-{secrets.token_hex(12)}",
        "MIDTRANS_MERCHANT_ID": "G123456789",
        "GATEWAY_SELLER_NAME": "PT Example",
        "GATEWAY_SELLER_ADDRESS": "Jl. Example 1|Jakarta",
        "GATEWAY_SELLER_TAX_ID": "01.234.567.8-901.000",
    }
    assert all(values.values()), "the example has lines that this fixture does not fill in"
    return values


@pytest.fixture
def operators_folder(tmp_path: Path, filled: dict[str, str]) -> Path:
    """A copy of ``deploy/`` with its ``.env.production``."""
    folder = tmp_path / "deploy"
    shutil.copytree(DEPLOY, folder)
    (folder / ".env.production").write_text("".join(f"{name}='{value}'\n" for name, value in filled.items()))
    return folder


def _lines_in_use() -> list[str]:
    lines = (DEPLOY / ".env.production.example").read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]
