"""Publishes events for Carillon from Python (`pip install redis`).

    publisher = Publisher("redis://carillon-publisher:secret@redis:6379", source="cms-01")
    publisher.record("comments:42", {"type": "comment.created", "data": {"project": 42}})
    publisher.live("comments:42", {"type": "activity.updated"})

Publish after your transaction has committed: editors refetch as soon as the event reaches them.
"""

import json
import os
import random
import sys
import time
import uuid
from datetime import datetime, timezone

import redis

# Answers that pass by themselves: Redis is failing over, short of memory (the library makes classes of these) or busy,
# short of replicas.
PASSING = (
    redis.ReadOnlyError, redis.exceptions.MasterDownError, redis.exceptions.ClusterDownError,
    redis.exceptions.TryAgainError, redis.exceptions.OutOfMemoryError,
)
PASSING_TEXT = ("BUSY ", "NOREPLICAS ")


class NotPublished(Exception):
    """The event is not recorded; the text says why and what to do."""


class Publisher:
    """Publishes to the Redis that Carillon's nodes listen to. One is enough for a process; threads may share it."""

    def __init__(self, url, source, prefix="carillon", patience=10.0):
        """`source` names this publisher; `patience`: seconds until `record` gives up (well under five minutes, the time
        for which Carillon recognises an id)."""
        self.source, self.prefix, self.patience = source, prefix, patience
        self.redis = redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2, decode_responses=True)

    def record(self, topic, event):
        """Publishes an event that is kept for editors who are away; returns its log id, `<epoch>-<seq>`.

        After an error nobody knows whether Redis had already taken it. So the event has an `id` before the first
        attempt and keeps it: Carillon answers a repetition with the first id and delivers nothing twice.
        """
        event = {"id": str(uuid.uuid4()), "source": self.source, "time": now(), **event}
        text = json.dumps(event, ensure_ascii=False)
        deadline, pause = time.monotonic() + self.patience, 0.05
        while True:
            try:
                return self.redis.fcall(f"{self.prefix}_publish", 1, f"{self.prefix}:{topic}", text)
            except (redis.ConnectionError, redis.TimeoutError, redis.ResponseError) as error:
                trouble = explain(error, self.prefix)
                if not passes(error) or time.monotonic() + pause > deadline:
                    raise NotPublished(trouble) from error
            # The next attempt finds today's master.
            self.redis.connection_pool.disconnect(inuse_connections=False)
            time.sleep(pause * random.uniform(0.5, 1))
            pause = min(pause * 2, 1)

    def live(self, topic, event):
        """Publishes to whoever is connected at this moment; nothing is kept, so nothing is repeated either. Returns how
        many nodes it reached: 0 where none follows the topic."""
        try:
            return self.redis.publish(f"{self.prefix}:{topic}", json.dumps(event, ensure_ascii=False))
        except (redis.ConnectionError, redis.TimeoutError, redis.ResponseError) as error:
            raise NotPublished(explain(error, self.prefix)) from error


def now():
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def function_is_missing(error):
    return "function not found" in str(error).lower()


def passes(error):
    """Whether another attempt makes sense. What the function refuses (TOPIC, EVENT) or the user may not do (NOPERM)
    stays refused; a missing function is loaded by the next node that connects."""
    # Wrong credentials are a ConnectionError in this library.
    if isinstance(error, (redis.AuthenticationError, redis.exceptions.NoPermissionError)):
        return False
    if isinstance(error, (redis.ConnectionError, redis.TimeoutError)):
        return True
    return function_is_missing(error) or isinstance(error, PASSING) or str(error).startswith(PASSING_TEXT)


def explain(error, prefix):
    if function_is_missing(error):
        return (
            f"Redis has no function {prefix}_publish: start a Carillon node, which loads it, or load it by hand: "
            "carillon redis-function | redis-cli -x FUNCTION LOAD REPLACE"
        )
    return f"Redis did not take the event: {error}"


def main():
    """`carillon_publisher.py record|live TOPIC EVENT`, with CARILLON_REDIS, CARILLON_SOURCE and CARILLON_PATIENCE."""
    if len(sys.argv) != 4 or sys.argv[1] not in ("record", "live"):
        sys.exit("usage: carillon_publisher.py record|live TOPIC EVENT")
    publisher = Publisher(
        os.environ.get("CARILLON_REDIS", "redis://127.0.0.1:6379"),
        source=os.environ.get("CARILLON_SOURCE", "example"),
        patience=float(os.environ.get("CARILLON_PATIENCE", "10")),
    )
    publish = publisher.record if sys.argv[1] == "record" else publisher.live
    try:
        print(publish(sys.argv[2], json.loads(sys.argv[3])))
    except NotPublished as trouble:
        sys.exit(str(trouble))


if __name__ == "__main__":
    main()
