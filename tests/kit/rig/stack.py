"""The compose stack seen from the machine it runs on: Docker's command line, container addresses, small HTTP requests."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from kit.machine import free_port

ROOT = Path(__file__).resolve().parents[3]


def http(url, method="GET", body=None, timeout=5, headers=None):
    """(status, body) of a request; (0, reason) where none was answered."""
    request = urllib.request.Request(url, method=method, data=body, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except (OSError, TimeoutError) as error:
        return 0, str(error)


class Stack:
    """One project of docker-compose, with its own name, port and volumes."""

    def __init__(self, tree, project, files=("docker-compose.yml",), **environment):
        self.tree, self.project, self.port = tree, project, free_port("0.0.0.0")
        self.environment = {
            **os.environ,
            "COMPOSE_PROJECT_NAME": project,
            "CARILLON_PORT": str(self.port),
            "DOCKER_BUILDKIT": "0",
            "COMPOSE_DOCKER_CLI_BUILD": "0",
            **environment,
        }
        self.command = ["docker-compose" if shutil.which("docker-compose") else "docker compose"]
        self.command = self.command[0].split() + [part for file in files for part in ("-f", file)]
        self.log = open(ROOT / "tests/output" / f"{project}.log", "ab")

    @property
    def origin(self):
        return f"http://127.0.0.1:{self.port}"

    def run(self, *command, check=True, timeout=600, quiet=False, **environment):
        """Standard output of a command; everything else goes to tests/output."""
        self.log.write(f"$ {' '.join(command)}\n".encode())
        self.log.flush()
        done = subprocess.run(
            command, cwd=self.tree, env={**self.environment, **environment}, stdout=subprocess.PIPE, stderr=self.log,
            stdin=subprocess.DEVNULL, timeout=timeout, check=False,
        )
        if not quiet and "inspect" not in command:
            self.log.write(done.stdout)
        self.log.flush()
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)} ended with {done.returncode}: see {self.log.name}")
        return done.stdout.decode().strip()

    async def aside(self, *command, **options):
        """Like run, while the editors go on."""
        return await asyncio.to_thread(self.run, *command, **options)

    def compose(self, *arguments, **options):
        return self.run(*self.command, *arguments, **options)

    def ids(self, service):
        """Running containers of a service, oldest first."""
        label = "label=com.docker.compose"
        found = self.run(
            "docker", "ps", "-q", "--no-trunc", "--filter", f"{label}.project={self.project}", "--filter", f"{label}.service={service}",
            "--filter", f"{label}.oneoff=False",
        )
        return found.split()[::-1]

    def inspect(self, container):
        return json.loads(self.run("docker", "inspect", container))[0]

    def address(self, container):
        networks = self.inspect(container)["NetworkSettings"]["Networks"]
        return next(iter(networks.values()))["IPAddress"]

    def health(self, container):
        return self.inspect(container)["State"].get("Health", {}).get("Status")

    @contextlib.asynccontextmanager
    async def drains(self):
        """A list that is filled, when the block ends, with the moments (time.monotonic) at which nodes got SIGTERM in it."""
        offset, moments = time.time() - time.monotonic(), []
        # Followed, not asked for afterwards: Docker remembers its last 256 events, and health checks are most of them.
        label = "label=com.docker.compose"
        watch = await asyncio.create_subprocess_exec(
            "docker", "events", "--filter", "event=kill", "--filter", f"{label}.project={self.project}", "--filter",
            f"{label}.service=node", "--format", "{{json .}}", env=self.environment, stdout=asyncio.subprocess.PIPE,
        )
        try:
            yield moments
        finally:
            watch.terminate()
            for event in map(json.loads, (await watch.communicate())[0].splitlines()):
                if event["Actor"]["Attributes"]["signal"] == "15":
                    moments.append(event["timeNano"] / 1e9 - offset)

    def secret(self, name):
        """A generated secret, read the way an operator would: in a container that mounts the volume of all and has a shell."""
        command = ("docker", "run", "--rm", "--network", "none", "--volume", f"{self.project}_secrets:/all:ro", "--entrypoint", "cat")
        return self.run(*command, "redis:7-bookworm", f"/all/{name}", quiet=True)

    def load(self, name):
        return Load(f"http://{self.address(self.ids(name)[0])}:8000")

    def leftovers(self):
        """What is still there of the project: containers, volumes, networks."""
        label = f"label=com.docker.compose.project={self.project}"
        return [
            *self.run("docker", "ps", "-aq", "--filter", label).split(),
            *self.run("docker", "volume", "ls", "-q", "--filter", label).split(),
            *self.run("docker", "network", "ls", "-q", "--filter", label).split(),
        ]

    def down(self, patience=20):
        self.compose("--profile", "monitoring", "down", "-v", "--remove-orphans", "-t", str(patience), check=False)


class Load:
    """The HTTP door of a publisher (tests/rig/publisher.py)."""

    def __init__(self, url):
        self.url = url

    def state(self):
        return self._answer("/", "GET", 5)

    def rate(self, per_second):
        """At 0 it answers when the last publication is in."""
        return self._answer(f"/rate?per_second={per_second}", "POST", 300)

    def _answer(self, path, method, seconds):
        status, body = http(self.url + path, method, b"" if method == "POST" else None, timeout=seconds)
        if status != 200:
            raise AssertionError(f"the publisher at {self.url} answers {status}: {body}")
        return json.loads(body)


def clean_tree(target):
    """The files that are under version control, and nothing else: what a clean clone has."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout.decode()
    for name in filter(None, names.split("\0")):
        if (ROOT / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def next_release(tree, target):
    """The same tree as another release: a copy with a higher version number."""
    shutil.copytree(tree, target)
    old = re.search(r'^version = "(.+)"$', (tree / "Cargo.toml").read_text(), re.MULTILINE).group(1)
    new = f"{int(old.split('.')[0]) + 1}.0.0"
    for name in ("Cargo.toml", "Cargo.lock"):
        text = (target / name).read_text()
        # The workspace's own number, and those of its parts: in the manifest beside their paths, in the lock file below their names.
        changed, times = re.subn(
            rf'(^\[workspace\.package\]\n|^carillon.*path = ".*", |^name = "carillon.*"\n)version = "{re.escape(old)}"', rf'\1version = "{new}"', text, flags=re.MULTILINE
        )
        if times != 3:
            raise AssertionError(f"{times} versions of carillon in {name}, not 3")
        (target / name).write_text(changed)
    return old, new


def megabytes(size):
    return f"{size / 1e6:.1f} MB"


def process_status(pid):
    """The fields of /proc/<pid>/status."""
    return dict(re.findall(r"^(\w+):\s*(.*)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE))


def stopwatch():
    started = time.monotonic()
    return lambda: time.monotonic() - started
