"""From a Redis URL to a client, the way Carillon's own nodes read it.

    redis://user:password@host:6379/0          rediss://…  (TLS)
    redis-sentinel://user:password@host1:26379,host2:26379/service
    redis-cluster://user:password@host1:6379,host2:6379
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import redis
from redis.backoff import NoBackoff

TIMEOUT = 2.0
"""Seconds for connecting and for each answer. A publisher that waits longer blocks what it serves."""


@dataclass(frozen=True)
class Target:
    """A Redis URL in parts."""

    scheme: str
    hosts: tuple[tuple[str, int], ...]
    username: str | None
    password: str | None
    path: str

    @property
    def is_cluster(self) -> bool:
        """Whether the URL names a cluster."""
        return self.scheme == "redis-cluster"


def parse(url: str) -> Target:
    """Reads the parts of a URL. Raises ValueError with a sentence for what is not one. It never quotes the password."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in ("redis", "rediss", "redis-sentinel", "redis-cluster"):
        raise ValueError("the Redis URL must begin with redis://, rediss://, redis-sentinel:// or redis-cluster://")
    rest, _, path = rest.partition("/")
    credentials, at, places = rest.rpartition("@")
    username, _, password = credentials.partition(":") if at else ("", "", "")
    port = 26379 if scheme == "redis-sentinel" else 6379
    hosts = tuple(_host(place, port) for place in places.split(",") if place)
    if not hosts:
        raise ValueError("the Redis URL names no host")
    if scheme == "redis-sentinel" and not path:
        raise ValueError("a redis-sentinel URL ends in the name of the service: redis-sentinel://host:26379/mymaster")
    if scheme in ("redis", "rediss") and path and not path.isdecimal():
        raise ValueError("a Redis URL ends in the number of a database, or in nothing: redis://host:6379/0")
    return Target(scheme, hosts, unquote(username) or None, unquote(password) or None, path)


def _host(place: str, default: int) -> tuple[str, int]:
    name, colon, port = place.rpartition(":")
    if not colon or place.endswith("]"):
        return place.strip("[]"), default
    if not port.isdecimal() or not 0 < int(port) < 65_536:
        raise ValueError(f"{port!r} is not a port, in the Redis URL at {name!r}")
    return name.strip("[]"), int(port)


@dataclass(frozen=True)
class Library:
    """The client library's classes, with or without asyncio: they are made alike."""

    redis: Callable[..., Any]
    cluster: Callable[..., Any]
    cluster_node: Callable[..., Any]
    sentinel: Callable[..., Any]
    retry: Callable[..., Any]
    once_on_a_cluster: int
    """How redis-py 5 is told to try once: its class for asyncio counts attempts, the other repetitions."""


def client(
    library: Library, url: str, timeout: float, sentinel_options: Mapping[str, Any] | None, extra: Mapping[str, Any]
) -> Any:
    """A client of the library for a URL."""
    target = parse(url)
    # What is tried again, and for how long, is decided by the publisher: the library would repeat live events, too, and wait for long.
    once: dict[str, Any] = {"retry": library.retry(NoBackoff(), 0)}
    settings: dict[str, Any] = {
        **once,
        "username": target.username,
        "password": target.password,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "decode_responses": True,
        **extra,
    }
    if target.is_cluster:
        if int(redis.__version__.partition(".")[0]) < 6:
            settings.setdefault("cluster_error_retry_attempts", library.once_on_a_cluster)
        return library.cluster(startup_nodes=[library.cluster_node(host, port) for host, port in target.hosts], **settings)
    if target.scheme == "redis-sentinel":
        own = {**once, "socket_timeout": timeout, "socket_connect_timeout": timeout, **(sentinel_options or {})}
        return library.sentinel(list(target.hosts), sentinel_kwargs=own, **settings).master_for(target.path)
    if target.scheme == "rediss":
        settings["ssl"] = True
    host, port = target.hosts[0]
    return library.redis(host=host, port=port, db=int(target.path or 0), **settings)
