"""Fixtures: the documents, what has been seen, and sites that end with the test."""

import os
from pathlib import Path

import pytest

from documents import Documents
from kit.stage import PROGRAM, Site
from witness import Witness


def pytest_sessionstart(session):
    """Says what is missing before every test fails for one reason."""
    if not os.access(PROGRAM, os.X_OK):
        pytest.exit(f"no program at {PROGRAM}: build it (cargo build) or set CARILLON_BIN", returncode=2)


@pytest.fixture(scope="session")
def documents():
    return Documents()


@pytest.fixture(scope="session")
def witness(documents):
    return Witness(documents)


@pytest.fixture
def new_site(tmp_path):
    """Makes sites; `new_site("--requirepass", "x")` gives Redis options."""
    made = []

    def make(*redis_options):
        made.append(Site(tmp_path / f"site-{len(made) + 1}", redis_options))
        return made[-1]

    yield make
    for site in made:
        site.close()


@pytest.fixture
def site(new_site):
    """One Redis, no nodes yet."""
    return new_site()
