"""CMS instances as processes of their own, on SQLite or PostgreSQL."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .servers import eventually, free_port

PACKAGE = Path(__file__).resolve().parents[1]


class Instance:
    """One process that serves the CMS, by WSGI with threads or by ASGI."""

    def __init__(self, environment: Mapping[str, str], asgi: bool = False) -> None:
        self.port = free_port()
        wsgi_server = [sys.executable, "-m", "tests.instance", str(self.port)]
        asgi_server = [sys.executable, "-m", "uvicorn", "--log-level", "warning", "--port", str(self.port), "tests.asgi:application"]
        self.process = subprocess.Popen(asgi_server if asgi else wsgi_server, cwd=PACKAGE, env=environment)
        eventually(lambda: self.get("/start"))

    def get(self, path: str, origin: str | None = None) -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers={"X-Carillon-Origin": origin} if origin else {})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def save(self, name: str, key: object = "page", origin: str | None = None) -> None:
        self.get(f"/save?name={name}&key={key}", origin)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Site:
    """A database, and the instances that share it."""

    def __init__(self, database: Mapping[str, Any], redis_url: str, **settings: Any) -> None:
        self.database = database
        self.settings = {"REDIS": redis_url, "SECRET": "0123456789abcdef" * 2, "SOURCE": "cms", **settings}
        self.instances: list[Instance] = []
        self.manage("migrate", "--verbosity", "0")

    def environment(self, **settings: Any) -> dict[str, str]:
        return {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "TEST_DATABASE": json.dumps(self.database),
            "TEST_CARILLON": json.dumps({**self.settings, **settings}),
        }

    def manage(self, *command: str, **settings: Any) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "django", *command],
            cwd=PACKAGE, env=self.environment(**settings), capture_output=True, text=True, check=True,
        )

    def start(self, asgi: bool = False, **settings: Any) -> Instance:
        instance = Instance(self.environment(**settings), asgi)
        self.instances.append(instance)
        return instance

    def waiting(self) -> int:
        return int(self.run("from carillon_notify.django.models import OutboxRow; print(OutboxRow.objects.count())"))

    def run(self, code: str, **settings: Any) -> str:
        return self.manage("shell", "--no-imports", "-c", code, **settings).stdout.strip()


@contextmanager
def site(database: Mapping[str, Any], redis_url: str, **settings: Any) -> Iterator[Site]:
    found = Site(database, redis_url, **settings)
    try:
        yield found
    finally:
        for instance in found.instances:
            instance.kill()
