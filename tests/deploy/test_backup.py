"""``deploy/backup``: what it has written can be read back, and it says so only then."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.deploy.conftest import DEPLOY
from tests.support.postgres import Postgres


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    server.start()
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE books AS SELECT * FROM generate_series(1, 1000) AS entry")
    yield server
    server.stop()


def backup(postgres: Postgres, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    values = {**os.environ, "DATABASE_URL": postgres.url, **environment}
    values["PATH"] = f"{environment.get('PATH', '')}:{postgres.programs}:{os.environ['PATH']}"
    return subprocess.run(
        [str(DEPLOY / "backup"), str(folder)], env=values, capture_output=True, text=True, timeout=60, check=False
    )


def databases(postgres: Postgres) -> list[str]:
    with psycopg.connect(postgres.url) as connection:
        return [name for (name,) in connection.execute("SELECT datname FROM pg_database ORDER BY 1")]


def test_backup_is_read_back_and_leaves_nothing_behind(postgres: Postgres, tmp_path: Path) -> None:
    before = databases(postgres)
    done = backup(postgres, tmp_path / "backups")
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "backups").iterdir()
    assert done.stdout.strip() == str(file)
    assert file.stat().st_mode & 0o077 == 0
    assert databases(postgres) == before
    listed = subprocess.run(
        [str(postgres.programs / "pg_restore"), "--data-only", "--file=-", str(file)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "\n1000\n" in listed.stdout


def test_backup_that_cannot_be_read_back_is_none(postgres: Postgres, tmp_path: Path) -> None:
    before = databases(postgres)
    torn = tmp_path / "bin"
    torn.mkdir()
    # A disk that is full: the program ends well, and half of the file is missing.
    script = f'#!/bin/sh\n{postgres.programs}/pg_dump "$@" || exit 1\nfor last; do :; done\n'
    script += 'for part; do case "$part" in --file=*) truncate --size=-200 "${part#--file=}";; esac; done\n'
    (torn / "pg_dump").write_text(script)
    (torn / "pg_dump").chmod(0o755)
    done = backup(postgres, tmp_path / "backups", PATH=str(torn))
    assert done.returncode != 0
    assert done.stdout == ""
    assert [file.suffix for file in (tmp_path / "backups").iterdir()] == [".part"]
    assert databases(postgres) == before


@pytest.mark.parametrize("rest", ["", "/", "/?sslmode=require", "/gateway?dbname=gateway"])
def test_backup_never_reads_back_into_the_database_itself(postgres: Postgres, tmp_path: Path, rest: str) -> None:
    done = backup(postgres, tmp_path / "backups", DATABASE_URL=f"postgresql://gateway@127.0.0.1:1{rest}")
    assert done.returncode != 0
    assert "names no database" in done.stderr
