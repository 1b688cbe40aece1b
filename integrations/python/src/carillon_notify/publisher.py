"""The publisher for threads."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Union, overload

import redis
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry
from redis.sentinel import Sentinel

from . import connect
from .delivery import Call, Delivery, position_of, positions_of
from .errors import CLIENT_ERRORS, Result, not_published
from .events import Event, Message, Topics, complete, dumps, message

Client = Union["redis.Redis", RedisCluster]

_LIBRARY = connect.Library(redis.Redis, RedisCluster, ClusterNode, Sentinel, Retry, 0)

DEFAULT_URL = "redis://127.0.0.1:6379"


def client_for(
    url: str, timeout: float = connect.TIMEOUT, sentinel_options: Mapping[str, Any] | None = None, **options: Any
) -> Client:
    """A Redis client for a URL (see `carillon_notify.connect`).

    `sentinel_options` (`username`, `password`, …) are for the sentinels themselves. Other options go to the client
    library as they are, `ssl_ca_certs` for example.
    """
    made: Client = connect.client(_LIBRARY, url, timeout, sentinel_options, options)
    return made


class Publisher:
    """Publishes to the Redis that Carillon's nodes listen to. One is enough for a process; threads may share it.

    It waits for Redis, so it is for scripts and workers. In a web request, use an outbox
    (`carillon_notify.django`) that writes the event in the transaction of the change.
    """

    def __init__(
        self,
        redis: str | Client = DEFAULT_URL,
        source: str | None = None,
        *,
        prefix: str = "carillon",
        patience: float = 10.0,
        timeout: float = connect.TIMEOUT,
        **options: Any,
    ) -> None:
        """`redis` is a URL or a client of yours that decodes responses; `source` names this publisher in its events.

        `patience`: seconds until publishing gives up. Keep it well under five minutes, the time for which Carillon
        recognises an event's id. `timeout`: seconds for one answer of Redis. `options` as in `client_for`.
        """
        self.source, self.prefix, self.patience = source, prefix, patience
        self._again: Callable[[], Client] | None = partial(client_for, redis, timeout, **options) if isinstance(redis, str) else None
        self.client: Client = client_for(redis, timeout, **options) if isinstance(redis, str) else redis

    @overload
    def record(self, topic: str, event: Event) -> str: ...
    @overload
    def record(self, topic: Topics, event: Event) -> tuple[str, ...]: ...

    def record(self, topic: str | Topics, event: Event) -> str | tuple[str, ...]:
        """Publishes an event that is kept for editors who are away, to one topic or to several.

        Returns its log id (`<epoch>-<seq>`), or one for each topic. Raises `Refused` or `Unavailable`. After an
        error nobody knows whether Redis had already taken the event; it keeps its `id` over all attempts, so that
        nothing is delivered twice.
        """
        (result,) = self.record_many([(topic, event)])
        return position_of(result) if isinstance(topic, str) else positions_of(result)

    def record_many(self, events: Iterable[tuple[str | Topics, Event]]) -> list[Result]:
        """Publishes many events in few round trips, in order within each topic. One result per event, in their order."""
        return self.publish([message(topics, event, self.source) for topics, event in events], self.patience)

    def publish(self, messages: Sequence[Message], patience: float) -> list[Result]:
        """Publishes messages that are made already: their ids and texts stay as they are."""
        delivery = Delivery(messages, self.prefix, patience)
        while calls := delivery.calls():
            pause = delivery.take(calls, self._call(calls))
            if pause:
                self.reconnect()
                time.sleep(pause)
        return delivery.results()

    def live(self, topic: str, event: Event) -> int:
        """Publishes to whoever is connected at this moment. Nothing is kept, so nothing is repeated either.

        Returns how many nodes it reached, 0 where none follows the topic.
        """
        channel, text = f"{self.prefix}:{topic}", dumps(complete(event, self.source))
        try:
            if isinstance(self.client, RedisCluster):
                return int(self.client.execute_command("SPUBLISH", channel, text))
            return int(self.client.publish(channel, text))
        except CLIENT_ERRORS as error:
            raise not_published(error, self.prefix) from error

    def report(self, name: str, seconds: int = 15, oldest_ms: int = 0) -> None:
        """Vouches for a source for `seconds` (5 to 300; 0 says good-bye).

        `oldest_ms` is the age of the oldest event that waits to be published. Where it is above 10 s, or the time is over and
        nobody has vouched again, editors are told within 20 s that changes made through this source may be late.
        """
        try:
            self.client.fcall(f"{self.prefix}_source", 1, f"{self.prefix}:sources", name, str(seconds), str(oldest_ms))
        except CLIENT_ERRORS as error:
            raise not_published(error, self.prefix) from error

    def ping(self) -> None:
        """Asks Redis for a sign of life. Raises `Unavailable` or `Refused`."""
        try:
            self.reconnect()
            self.client.ping()
        except CLIENT_ERRORS as error:
            raise not_published(error, self.prefix) from error

    def reconnect(self) -> None:
        """Drops idle connections, so that the next attempt finds the master of that moment.

        A cluster's client may stick to a member that is gone: a new one asks the others.
        """
        if isinstance(self.client, redis.Redis):
            self.client.connection_pool.disconnect(inuse_connections=False)
        elif self._again:
            try:
                fresh = self._again()
            except CLIENT_ERRORS:
                return  # nobody answers yet: the next attempt tries again
            self.client.close()
            self.client = fresh

    def close(self) -> None:
        """Closes all connections."""
        self.client.close()

    def _call(self, calls: Sequence[Call]) -> Sequence[object]:
        try:
            # On a cluster the pipeline goes to the masters of all its keys.
            pipe = self.client.pipeline() if isinstance(self.client, RedisCluster) else self.client.pipeline(transaction=False)
            for call in calls:
                pipe.execute_command("FCALL", f"{self.prefix}_publish", 1, f"{self.prefix}:{call.topic}", call.text)
            answers: list[object] = pipe.execute(raise_on_error=False)
            return answers
        except CLIENT_ERRORS as error:
            return [error] * len(calls)
