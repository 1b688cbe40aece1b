"""Servers that the tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from .servers import RedisServer, load_library


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"), "--save", "")
    load_library(server.client())
    yield server
    server.stop()


@pytest.fixture
def store(shared_redis: RedisServer) -> RedisServer:
    """The shared Redis, emptied; its functions stay."""
    shared_redis.client().flushall()
    return shared_redis


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that the test may stop and start; its functions are kept on disk."""
    server = RedisServer(tmp_path / "redis", "--appendonly", "yes", "--appendfsync", "always", "--save", "")
    load_library(server.client())
    yield server
    server.stop()
