"""What a development machine keeps between starts: generated secrets and where the embedded services listen.

Room: gateway_project. Nothing here is used in production, where secrets and addresses come from the environment.
"""

import json
import os
import secrets
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import TypedDict


class ProcessRecord(TypedDict):
    """One entry of ``processes.json``; port is 0 for a process that listens nowhere."""

    name: str
    pid: int
    port: int


def read_processes(state_dir: Path) -> list[ProcessRecord]:
    """The processes that ``make run`` started last; empty when there are none or the file is being replaced."""
    try:
        records: list[ProcessRecord] = json.loads((state_dir / "processes.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return records


def write_processes(state_dir: Path, records: list[ProcessRecord]) -> None:
    """Replaces the file in one step, so that a reader never sees half of it."""
    target = state_dir / "processes.json"
    draft = target.with_suffix(".tmp")
    draft.write_text(json.dumps(records, indent=2) + "\n", encoding="utf-8")
    draft.replace(target)


def embedded_port(state_dir: Path, name: str) -> int:
    """The port of a running embedded service, 0 when it is not running."""
    for record in read_processes(state_dir):
        if record["name"] == name and _is_alive(record["pid"]):
            return record["port"]
    return 0


def development_secrets(state_dir: Path) -> dict[str, str]:
    """Keys of this machine, made at the first start and kept in a file that only its owner may read.

    Returns ``GATEWAY_SECRET_KEY`` and ``GATEWAY_JWT_KEYS``.
    """
    path = state_dir / "secrets.json"
    state_dir.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        values = {
            "GATEWAY_SECRET_KEY": secrets.token_urlsafe(50),
            "GATEWAY_JWT_KEYS": f"development:HS256:{urlsafe_b64encode(secrets.token_bytes(32)).decode()}",
        }
        draft = state_dir / f"secrets.{os.getpid()}.tmp"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(values, file)
        try:
            # link() fails when another process was first: whoever loses reads the winner's keys.
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    loaded: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
