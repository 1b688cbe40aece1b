"""A PostgreSQL server of a test's own, on a free port of loopback."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from kit.stage import free_port


class Postgres:
    """One server with a database `site` and a user `site` without a password. It must not run as root."""

    def __init__(self):
        self.tools = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
        self.place = Path(tempfile.mkdtemp(prefix="carillon-postgres-"))
        self.place.chmod(0o777)
        self.port = free_port()
        self._run("initdb", "-D", self.place / "data", "-U", "site", "-A", "trust", "--no-sync")
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.place} -c fsync=off -c max_connections=200"
        self._run("pg_ctl", "-D", self.place / "data", "-w", "-l", self.place / "log", "-o", options, "start")
        self._run("createdb", "-h", "127.0.0.1", "-p", self.port, "-U", "site", "site")

    @property
    def url(self):
        return f"postgres://site@127.0.0.1:{self.port}/site"

    def stop(self):
        self._run("pg_ctl", "-D", self.place / "data", "-m", "immediate", "stop")
        shutil.rmtree(self.place, ignore_errors=True)

    def _run(self, program, *arguments):
        become = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        # The server keeps what it inherits: not our pipes.
        with (self.place / "commands").open("ab") as log:
            subprocess.run([*become, str(self.tools / program), *map(str, arguments)], check=True, stdout=log, stderr=log, cwd="/tmp")
