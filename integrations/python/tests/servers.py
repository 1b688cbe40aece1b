"""Real servers for the tests: Redis alone, as a cluster, behind a sentinel, and PostgreSQL."""

import contextlib
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import redis

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[3]


def carillon() -> str:
    """The program under test."""
    return os.environ.get("CARILLON_BIN") or str(ROOT / "target/debug/carillon")


def free_port() -> int:
    """A port that nobody listens on; it and a cluster's bus port (plus 10,000) lie below those of outgoing connections."""
    while True:
        port = random.randint(12_000, 21_999)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def eventually(look: Callable[[], T], seconds: float = 30) -> T:
    """Waits until `look` gives something true; an exception counts as not yet."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if found := look():
                return found
        except (redis.RedisError, OSError):
            if time.monotonic() > deadline:
                raise
        if time.monotonic() > deadline:
            raise AssertionError("what the test waits for has not come")
        time.sleep(0.02)


class RedisServer:
    """One redis-server of the test's own."""

    def __init__(self, directory: Path, *options: str, port: int | None = None, program: str = "redis-server") -> None:
        self.directory, self.port, self.program = directory, port or free_port(), program
        directory.mkdir(parents=True, exist_ok=True)
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [self.program]
        if self.program == "redis-sentinel":
            command.append(str(self.directory / "sentinel.conf"))
        command += ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory), *self.options]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        eventually(self.client().ping)

    def client(self) -> "redis.Redis":
        return redis.Redis(port=self.port, decode_responses=True, socket_timeout=5)

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None


def load_library(client: "redis.Redis", *options: str) -> None:
    """Loads Carillon's functions as a node would."""
    text = subprocess.run([carillon(), "redis-function", *options], check=True, capture_output=True, text=True).stdout
    client.function_load(text, replace=True)


@contextlib.contextmanager
def cluster(directory: Path, replicas: int = 0) -> Iterator[list[RedisServer]]:
    """A cluster of three masters, each with the library, and so many replicas of each."""
    options = ("--cluster-enabled", "yes", "--save", "", "--cluster-node-timeout", "2000")
    servers = [RedisServer(directory / str(number), *options) for number in range(3 * (1 + replicas))]
    try:
        places = [f"127.0.0.1:{server.port}" for server in servers]
        more = ["--cluster-replicas", str(replicas)]
        subprocess.run(["redis-cli", "--cluster", "create", *places, *more, "--cluster-yes"], check=True, capture_output=True)
        environment = {**os.environ, "CARILLON__REDIS__URL": "redis-cluster://" + ",".join(places)}
        text = subprocess.run([carillon(), "redis-function"], check=True, capture_output=True, text=True, env=environment).stdout
        for server in servers:
            eventually(lambda server=server: server.client().cluster("info")["cluster_state"] == "ok")  # type: ignore[misc]
            if server.client().role()[0] == "master":
                server.client().function_load(text, replace=True)
        for server in servers:
            eventually(lambda server=server: server.client().function_list())  # type: ignore[misc]
        yield servers
    finally:
        for server in servers:
            server.stop()


def _postgres_tools() -> str | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return str(found[-1]) if found else os.path.dirname(shutil.which("pg_ctl") or "") or None


def has_postgres() -> bool:
    """Whether PostgreSQL's programs are here."""
    return _postgres_tools() is not None


@contextlib.contextmanager
def postgres() -> Iterator[int]:
    """A PostgreSQL server; gives its port."""
    directory = Path(tempfile.mkdtemp(prefix="carillon-postgres-"))
    tools = _postgres_tools()
    port, data = free_port(), directory / "data"
    directory.chmod(0o777)
    # The server refuses to run as root.
    become = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    run = lambda *command: subprocess.run([*become, *command], check=True, capture_output=True, cwd="/tmp")  # noqa: E731
    run(f"{tools}/initdb", "-D", str(data), "-U", "tester", "-A", "trust", "--no-sync")
    run(f"{tools}/pg_ctl", "-D", str(data), "-w", "-l", str(directory / "log"), "-o", f"-p {port} -c listen_addresses=127.0.0.1 -k {directory} -c fsync=off", "start")
    try:
        run("psql", "-h", "127.0.0.1", "-p", str(port), "-U", "tester", "-d", "postgres", "-c", "CREATE DATABASE tests")
        yield port
    finally:
        run(f"{tools}/pg_ctl", "-D", str(data), "-m", "immediate", "stop")
        shutil.rmtree(directory)


def has_mariadb() -> bool:
    """Whether MariaDB, which speaks as MySQL does, is here."""
    return bool(shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin"))


@contextlib.contextmanager
def mariadb() -> Iterator[int]:
    """A MariaDB server with a database `tests`, for root without a password; gives its port."""
    directory = Path(tempfile.mkdtemp(prefix="carillon-mariadb-"))
    port, data = free_port(), directory / "data"
    owner = ["--user=root"] if os.getuid() == 0 else []
    install = ["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal", "--skip-test-db", *owner]
    subprocess.run(install, check=True, capture_output=True)
    (directory / "init.sql").write_text("CREATE DATABASE IF NOT EXISTS tests CHARACTER SET utf8mb4;\n")
    program = shutil.which("mariadbd") or "/usr/sbin/mariadbd"
    options = [f"--datadir={data}", f"--port={port}", "--bind-address=127.0.0.1", f"--socket={directory}/socket", f"--pid-file={directory}/pid"]
    with (directory / "log").open("ab") as log:
        server = subprocess.Popen([program, "--no-defaults", *options, f"--init-file={directory}/init.sql", *owner], stdout=log, stderr=log)
    try:
        eventually(lambda: "ready for connections" in (directory / "log").read_text(errors="replace"))
        yield port
    finally:
        server.terminate()
        server.wait(60)
        shutil.rmtree(directory)
