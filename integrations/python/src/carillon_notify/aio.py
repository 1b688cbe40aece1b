"""The publisher for asyncio: the same calls as `Publisher`, awaited."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Union, overload

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel

from . import connect
from .delivery import Call, Delivery, position_of, positions_of
from .errors import CLIENT_ERRORS, Result, not_published
from .events import Event, Topics, complete, dumps, message
from .publisher import DEFAULT_URL

AsyncClient = Union["Redis", RedisCluster]

_LIBRARY = connect.Library(Redis, RedisCluster, ClusterNode, Sentinel, Retry, 1)


def async_client_for(
    url: str, timeout: float = connect.TIMEOUT, sentinel_options: Mapping[str, Any] | None = None, **options: Any
) -> AsyncClient:
    """As `carillon_notify.publisher.client_for`, for asyncio."""
    made: AsyncClient = connect.client(_LIBRARY, url, timeout, sentinel_options, options)
    return made


class AsyncPublisher:
    """As `Publisher`, for asyncio. One is enough for an event loop; tasks may share it."""

    def __init__(
        self,
        redis: str | AsyncClient = DEFAULT_URL,
        source: str | None = None,
        *,
        prefix: str = "carillon",
        patience: float = 10.0,
        timeout: float = connect.TIMEOUT,
        **options: Any,
    ) -> None:
        self.source, self.prefix, self.patience = source, prefix, patience
        self._again: Callable[[], AsyncClient] | None = partial(async_client_for, redis, timeout, **options) if isinstance(redis, str) else None
        self.client: AsyncClient = async_client_for(redis, timeout, **options) if isinstance(redis, str) else redis

    @overload
    async def record(self, topic: str, event: Event) -> str: ...
    @overload
    async def record(self, topic: Topics, event: Event) -> tuple[str, ...]: ...

    async def record(self, topic: str | Topics, event: Event) -> str | tuple[str, ...]:
        """As `Publisher.record`."""
        (result,) = await self.record_many([(topic, event)])
        return position_of(result) if isinstance(topic, str) else positions_of(result)

    async def record_many(self, events: Iterable[tuple[str | Topics, Event]]) -> list[Result]:
        """As `Publisher.record_many`."""
        delivery = Delivery([message(topics, event, self.source) for topics, event in events], self.prefix, self.patience)
        while calls := delivery.calls():
            pause = delivery.take(calls, await self._call(calls))
            if pause:
                await self.reconnect()
                await asyncio.sleep(pause)
        return delivery.results()

    async def live(self, topic: str, event: Event) -> int:
        """As `Publisher.live`."""
        channel, text = f"{self.prefix}:{topic}", dumps(complete(event, self.source))
        command = "SPUBLISH" if isinstance(self.client, RedisCluster) else "PUBLISH"
        try:
            return int(await self.client.execute_command(command, channel, text))
        except CLIENT_ERRORS as error:
            raise not_published(error, self.prefix) from error

    async def report(self, name: str, seconds: int = 15, oldest_ms: int = 0) -> None:
        """As `Publisher.report`."""
        try:
            await self.client.execute_command(
                "FCALL", f"{self.prefix}_source", 1, f"{self.prefix}:sources", name, seconds, oldest_ms
            )
        except CLIENT_ERRORS as error:
            raise not_published(error, self.prefix) from error

    async def reconnect(self) -> None:
        """As `Publisher.reconnect`."""
        if isinstance(self.client, Redis):
            await self.client.connection_pool.disconnect(inuse_connections=False)
        elif self._again:
            # This one asks nobody before it is used.
            old, self.client = self.client, self._again()
            await old.aclose()  # type: ignore[no-untyped-call, unused-ignore]

    async def close(self) -> None:
        """Closes all connections."""
        await self.client.aclose()  # type: ignore[no-untyped-call, unused-ignore]

    async def _call(self, calls: Sequence[Call]) -> Sequence[object]:
        try:
            pipe = self.client.pipeline() if isinstance(self.client, RedisCluster) else self.client.pipeline(transaction=False)
            for call in calls:
                pipe.execute_command("FCALL", f"{self.prefix}_publish", 1, f"{self.prefix}:{call.topic}", call.text)
            answers: list[object] = await pipe.execute(raise_on_error=False)
            return answers
        except CLIENT_ERRORS as error:
            return [error] * len(calls)
