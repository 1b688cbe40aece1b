"""Publishing the way a real CMS should: one FCALL per change, with an `id`, repeated with the same `id` until accepted.

That is all a publisher has to do to lose nothing and to publish nothing twice. Knows Carillon only through Redis.
"""

import json
import os
import threading
import time
import uuid
from datetime import datetime, timezone

import redis

# The function remembers an event's id for 5 minutes: give up before that, and say so.
GIVE_UP_SECONDS = 240


# What Redis' client raises: two families, one for clusters.
REDIS_ERRORS = (redis.exceptions.RedisError, redis.exceptions.RedisClusterException)
PREFIX = os.environ.get("CARILLON_PREFIX", "carillon")


def connect(user, file):
    """A client for a single Redis, a Sentinel group or a cluster, as the environment says."""
    password = None
    if folder := os.environ.get("REDIS_PASSWORDS"):
        with open(f"{folder}/{file}", encoding="utf-8") as secret:
            password = secret.read().strip()
    options = {"socket_timeout": 3, "socket_connect_timeout": 3, "decode_responses": True}
    if password:
        options |= {"username": user, "password": password}
    host, port = os.environ.get("REDIS_HOST", "127.0.0.1"), int(os.environ.get("REDIS_PORT", "6379"))
    if sentinels := os.environ.get("REDIS_SENTINELS"):
        addresses = [(part.split(":")[0], int(part.split(":")[1])) for part in sentinels.split(",")]
        sentinel = redis.sentinel.Sentinel(addresses, socket_timeout=1)
        return sentinel.master_for(os.environ.get("REDIS_MASTER", "carillon"), **options)
    if members := os.environ.get("REDIS_CLUSTER"):
        nodes = [redis.cluster.ClusterNode(*part.split(":")) for part in members.split(",")]
        return redis.RedisCluster(startup_nodes=nodes, **options)
    return redis.Redis(host=host, port=port, **options)


def renewed(client, user, file):
    """The client to go on with after an error. A cluster's may stick to a member that is gone: a new one asks the others."""
    if not os.environ.get("REDIS_CLUSTER"):
        return client
    try:
        fresh = connect(user, file)
    except REDIS_ERRORS:
        return client
    client.close()
    return fresh


def now():
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Publisher:
    """Counts what was accepted, by topic."""

    def __init__(self, source):
        self.source = source
        self.user = (f"{PREFIX}-publisher", "redis-publisher")
        self.redis = connect(*self.user)
        self.accepted = {}
        self.repeated = 0
        self.given_up = 0
        self.stopping = threading.Event()
        self.lock = threading.Lock()

    def publish(self, topic, kind, actor, data, origin=None):
        """Publishes until it is accepted. Returns the position, or raises what Redis said last."""
        event = {"id": str(uuid.uuid4()), "type": kind, "time": now(), "source": self.source, "actor": actor, "data": data}
        if origin:
            event["origin"] = origin
        text = json.dumps(event, separators=(",", ":"), ensure_ascii=False)
        deadline, wait = time.monotonic() + GIVE_UP_SECONDS, 0.1
        while True:
            try:
                position = self.redis.fcall(f"{PREFIX}_publish", 1, f"{PREFIX}:{topic}", text)
                break
            except REDIS_ERRORS as error:
                # "Function not found" is here too: Redis was emptied, and the nodes are about to load it again.
                with self.lock:
                    self.repeated += 1
                if time.monotonic() > deadline or self.stopping.wait(wait):
                    with self.lock:
                        self.given_up += 1
                    print(json.dumps({"level": "error", "message": f"gave up on an event of {topic}", "error": str(error)}))
                    raise
                wait = min(wait * 2, 1.0)
                self.redis = renewed(self.redis, *self.user)
        with self.lock:
            entry = self.accepted.setdefault(topic, {"count": 0, "last": ""})
            entry["count"] += 1
            if place(position) > place(entry["last"]):
                entry["last"] = position
        return position

    def state(self):
        with self.lock:
            return {
                "accepted": sum(entry["count"] for entry in self.accepted.values()),
                "repeated": self.repeated,
                "given_up": self.given_up,
                "topics": {topic: dict(entry) for topic, entry in self.accepted.items()},
            }


def place(position):
    """(epoch, seq) of a position, to compare by."""
    return tuple(int(part) for part in position.split("-")) if position else (0, 0)
