"""Fixtures: a site of the test's own, which ends with it; what its programs printed is shown when a test fails."""

import os
import resource
from pathlib import Path

import pytest
import pytest_asyncio

from kit.editors import NodeEditors
from kit.stage import PROGRAM, Site, leaks


# What the quick level runs: events reach whom they should, once and in order, by every way in. The rest starts and stops
# Redis, waits for time limits, or tries what the Rust tests try alike.
CORE = {"test_auth", "test_fanout", "test_live", "test_private", "test_readme", "test_resume"}
SLOW = ("five_hundred", "restarted_redis", "runs_out")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.module.__name__ in CORE and not any(word in item.name for word in SLOW):
            item.add_marker("core")


def pytest_sessionstart(session):
    """Says what is missing before a hundred tests fail for one reason."""
    if not os.access(PROGRAM, os.X_OK):
        pytest.exit(f"no program at {PROGRAM}: build it (cargo build) or set CARILLON_BIN", returncode=2)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Keeps the outcome where the fixture below sees it."""
    outcome = yield
    setattr(item, f"report_{call.when}", outcome.get_result())


@pytest.fixture
def new_site(tmp_path, request):
    """Makes sites; `new_site("--requirepass", "x")` gives Redis options."""
    made = []

    def make(*redis_options):
        made.append(Site(tmp_path / f"site-{len(made) + 1}", redis_options))
        return made[-1]

    yield make
    failed = getattr(getattr(request.node, "report_call", None), "failed", False)
    for site in made:
        site.close()
        for node in site.nodes if failed else []:
            print(f"---- {node.name} printed (the end of it)\n{node.output()[-4000:]}")
    found = {node.name: leaks(node.output(), node.settings) for site in made for node in site.nodes}
    assert not any(found.values()), f"secrets or tokens in what nodes printed: {found}"


@pytest.fixture
def site(new_site):
    """One Redis, no nodes yet."""
    return new_site()


@pytest_asyncio.fixture
async def node_editors():
    """The Node.js process with editors."""
    process = await NodeEditors.start()
    yield process
    await process.stop()
