"""The sample bodies of Midtrans that the tests read; made-up key, merchant and orders."""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "midtrans_samples"
MANIFEST: dict[str, Any] = json.loads((FOLDER / "manifest.json").read_text())
SERVER_KEY: str = MANIFEST["server_key"]
TRANSACTIONS = [entry for entry in MANIFEST["samples"] if entry["kind"] == "transaction"]
GENUINE = [entry for entry in TRANSACTIONS if entry["signature"] == "valid"]
OTHERS = [entry for entry in MANIFEST["samples"] if entry["kind"] != "transaction"]


def read(name: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((FOLDER / name).read_text())
    return body


def vector(name: str) -> dict[str, Any]:
    return read(f"vectors/{name}.json")
