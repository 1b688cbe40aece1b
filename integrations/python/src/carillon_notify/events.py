"""Events: small JSON objects that say what changed, never the content itself."""

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timezone
from typing import Any

Event = Mapping[str, Any]
"""An event as callers write it. Only `type` (`<noun>.<verb>`) is required."""

Topics = list[str] | tuple[str, ...] | set[str] | frozenset[str]
"""Several topics for one event."""

MAX_BYTES = 65_536
"""The largest event, as JSON in UTF-8."""


@dataclass(frozen=True)
class Message:
    """One event on its way to one or more topics. The text stays the same over all attempts, and so does its id."""

    topics: tuple[str, ...]
    text: str


def complete(event: Event, source: str | None) -> dict[str, Any]:
    """The event with an `id`, a `time` and the publisher's `source`, where it has none of its own.

    The id is what makes a repetition harmless: Carillon answers it with the first position and delivers nothing twice.
    """
    defaults: dict[str, Any] = {"id": str(uuid.uuid4()), "time": now()}
    if source is not None:
        defaults["source"] = source
    return {**defaults, **event}


def message(topics: str | Topics, event: Event, source: str | None) -> Message:
    """Makes a message. Raises ValueError for what no node would take."""
    names = (topics,) if isinstance(topics, str) else tuple(dict.fromkeys(topics))
    if not names:
        raise ValueError("an event needs at least one topic")
    text = dumps(complete(event, source))
    size = len(text.encode())
    if size > MAX_BYTES:
        raise ValueError(f"the event has {size} bytes, allowed are {MAX_BYTES}: say what changed, not the content itself")
    return Message(names, text)


def dumps(event: Event) -> str:
    """The event as strict JSON. UUIDs and times become text, as ids often are UUIDs.

    Raises ValueError for NaN, infinity and lone surrogates, which JSON does not have, and TypeError for other objects.
    """
    text = json.dumps(event, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("the event holds half of a surrogate pair, which is not valid Unicode") from error
    return text


def _plain(value: object) -> str:
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"an event cannot hold a {type(value).__name__}: use ids, types and counts")


def in_rounds(messages: Sequence[Message]) -> Iterable[list[int]]:
    """Indices of messages, a round at a time: within a round no topic comes twice.

    One event per topic is under way, so that a retry never changes the order within a topic.
    """
    waiting = list(range(len(messages)))
    while waiting:
        taken: list[int] = []
        later: list[int] = []
        busy: set[str] = set()
        for index in waiting:
            topics = messages[index].topics
            (later if busy.intersection(topics) else taken).append(index)
            # Whoever has to wait holds its topics back as well: what comes after it must not overtake.
            busy.update(topics)
        yield taken
        waiting = later


def now() -> str:
    """This moment as RFC 3339 in UTC, to the millisecond."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
