"""Fixtures: one healthy site for all tests, what a test adds to it, and the doctor itself."""

import json
import os
import re
from pathlib import Path

import pytest

from setups import Process  # noqa: F401  (its import finds the stage)
from kit.stage import PROGRAM, SECRET, Redis, Site, carillon, environment


def pytest_sessionstart(session):
    """Says what is missing before every test fails for one reason."""
    if not os.access(PROGRAM, os.X_OK):
        pytest.exit(f"no program at {PROGRAM}: build it (cargo build) or set CARILLON_BIN", returncode=2)


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """A Redis that keeps to the advice."""
    site = Site(tmp_path_factory.mktemp("site"), ("--appendonly", "yes", "--maxmemory-policy", "noeviction"))
    yield site
    site.close()


@pytest.fixture(scope="session")
def node(site):
    """A node that is well."""
    return site.node(auth__audience="carillon")


@pytest.fixture
def keep():
    """`keep(server)`: stopped with the test."""
    kept = []

    def take(server):
        kept.append(server)
        return server

    yield take
    for server in kept:
        server.stop()


@pytest.fixture
def new_redis(tmp_path, keep):
    """A Redis of the test's own, with these options."""
    return lambda *options: keep(Redis(tmp_path / "redis", *options))


@pytest.fixture
def token_file(tmp_path):
    """Writes a token into a file and returns its path."""

    def write(text):
        path = Path(tmp_path, "token")
        path.write_text(text + "\n")
        return str(path)

    return write


class Answers:
    """What the doctor said."""

    def __init__(self, code, text):
        self.code, self.text = code, text

    def line(self, question):
        """The line about a question with what is said below it, on one line."""
        pattern = rf"^[✓!✗–] {re.escape(question)} .*\n(?:   .*\n)*"
        found = re.search(pattern, self.text, re.MULTILINE)
        assert found, f"nothing about {question!r}:\n{self.text}"
        return re.sub(r"\s+", " ", found.group())

    def bad(self):
        """The questions with a bad answer."""
        return re.findall(r"^✗ (.*?)  ", self.text, re.MULTILINE)


@pytest.fixture
def doctor():
    """Runs `carillon doctor` with the secret of the nodes; `settings` go into its environment."""

    def run(url, *arguments, idle=0, **settings):
        settings = {"auth.mode": "jwt", "auth.secret": SECRET, "auth.audience": "carillon"} | {
            key.replace("__", "."): value for key, value in settings.items()
        }
        settings = {key: value for key, value in settings.items() if value is not None}
        arguments = ["doctor", url, "--idle", str(idle), *arguments]
        code, out, err = carillon(*arguments, env=environment(settings), seconds=90)
        assert code in (0, 1), f"exit code {code}: {err}"
        assert err == "", err
        if "--json" in arguments:
            return json.loads(out)
        print(out)
        assert "\x1b" not in out, "colours without a terminal"
        return Answers(code, out)

    return run
