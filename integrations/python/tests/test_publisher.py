"""Both publishers against real Redis: alone, as a cluster, behind a sentinel."""

import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from carillon_notify import AsyncPublisher, Publisher, Refused, Unavailable

from .servers import RedisServer, cluster, eventually
from .wire import Wire


def log_of(client: Any, topic: str) -> list[dict[str, Any]]:
    return [json.loads(fields["event"]) for _, fields in client.xrange(f"carillon:{topic}")]


def test_record(store: RedisServer) -> None:
    publisher = Publisher(store.url, source="cms")
    first = publisher.record("comments:42", {"type": "comment.created", "data": {"comment": 7}})
    second = publisher.record("comments:42", {"type": "comment.created"})
    assert second == first.replace("-1", "-2")
    event = log_of(store.client(), "comments:42")[0]
    assert (event["source"], event["type"], event["data"]) == ("cms", "comment.created", {"comment": 7})
    assert event["id"] and event["time"].endswith("Z")


def test_a_repetition_is_answered_with_the_first_position(store: RedisServer) -> None:
    publisher = Publisher(store.url, source="cms")
    event = {"type": "comment.created", "id": "once"}
    assert publisher.record("comments:1", event) == publisher.record("comments:1", event)
    assert len(log_of(store.client(), "comments:1")) == 1


def test_one_event_to_several_topics(store: RedisServer) -> None:
    positions = Publisher(store.url).record(["content:1", "content:2", "projects"], {"type": "content.moved"})
    assert len(positions) == 3
    ids = {log_of(store.client(), name)[0]["id"] for name in ("content:1", "content:2", "projects")}
    assert len(ids) == 1


def test_record_many_keeps_the_order_and_says_what_was_refused(store: RedisServer) -> None:
    events: list[tuple[str, dict[str, Any]]] = [(f"content:{n % 3}", {"type": "content.saved", "data": n}) for n in range(60)]
    events.insert(5, ("nowhere:1", {"type": "content.saved"}))
    results = Publisher(store.url).record_many(events)
    assert isinstance(results[5].error, Refused) and "nowhere" in str(results[5].error)
    assert sum(result.error is None for result in results) == 60
    for n in range(3):
        assert [event["data"] for event in log_of(store.client(), f"content:{n}")] == list(range(n, 60, 3))


def test_live_reaches_who_listens(store: RedisServer) -> None:
    listener = store.client().pubsub()
    listener.subscribe("carillon:comments:1")
    eventually(lambda: listener.get_message(timeout=1))
    publisher = Publisher(store.url)
    assert publisher.live("comments:1", {"type": "activity.updated"}) == 1
    assert publisher.live("comments:2", {"type": "activity.updated"}) == 0


@pytest.fixture
def losing(store: RedisServer) -> Iterator[Wire]:
    """Answers to PUBLISH are lost on it."""
    wire = Wire(store.port, b"PUBLISH")
    yield wire
    wire.close()


def test_a_live_event_whose_answer_is_lost_is_not_repeated(losing: Wire) -> None:
    """Nothing would recognise it a second time."""
    with pytest.raises(Unavailable):
        Publisher(f"redis://127.0.0.1:{losing.port}").live("comments:1", {"type": "activity.updated"})
    assert losing.seen == 1


async def test_a_live_event_is_not_repeated_for_asyncio(losing: Wire) -> None:
    publisher = AsyncPublisher(f"redis://127.0.0.1:{losing.port}")
    with pytest.raises(Unavailable):
        await publisher.live("comments:1", {"type": "activity.updated"})
    assert losing.seen == 1
    await publisher.close()


def test_a_recorded_event_whose_answer_is_lost_is_repeated_once_for_each_attempt(store: RedisServer) -> None:
    wire = Wire(store.port, b"FCALL")
    with pytest.raises(Unavailable):
        Publisher(f"redis://127.0.0.1:{wire.port}", patience=1.0).record("comments:1", {"type": "a.b"})
    wire.close()
    assert 2 <= wire.seen <= 10
    assert len(log_of(store.client(), "comments:1")) == 1


def test_wrong_rights_and_a_missing_function_are_named(own_redis: RedisServer) -> None:
    own_redis.client().acl_setuser("reader", enabled=True, passwords=["+secret"], commands=["+get"], keys=["*"])
    with pytest.raises(Refused, match="redis-function --acl"):
        Publisher(f"redis://reader:secret@127.0.0.1:{own_redis.port}").record("comments:1", {"type": "a.b"})
    with pytest.raises(Refused, match="password") as wrong:
        Publisher(f"redis://reader:wrong@127.0.0.1:{own_redis.port}").record("comments:1", {"type": "a.b"})
    assert "wrong" not in str(wrong.value).replace("WRONGPASS", "")
    own_redis.client().function_flush()
    with pytest.raises(Unavailable, match="start a Carillon node"):
        Publisher(own_redis.url, patience=0.1).record("comments:1", {"type": "a.b"})


def test_a_publisher_outlives_a_restart_of_redis(own_redis: RedisServer) -> None:
    publisher = Publisher(own_redis.url, patience=60)
    publisher.record("comments:1", {"type": "a.b"})
    own_redis.stop()
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(publisher.record("comments:1", {"type": "a.c"})))
    thread.start()
    own_redis.start()
    thread.join(60)
    assert found and found[0].endswith("-2")
    assert [event["type"] for event in log_of(own_redis.client(), "comments:1")] == ["a.b", "a.c"]


def test_cluster(tmp_path: Path) -> None:
    with cluster(tmp_path) as servers:
        publisher = Publisher(f"redis-cluster://127.0.0.1:{servers[0].port}", source="cms", patience=30)
        topics = [f"content:{n}" for n in range(20)]
        assert len(publisher.record(topics, {"type": "content.moved"})) == 20
        results = publisher.record_many([(name, {"type": "content.saved"}) for name in topics])
        assert all(result.positions[0].endswith("-2") for result in results)
        held = [len(server.client().keys("carillon:content:*")) for server in servers]
        assert sum(held) == 20 and all(held), "the topics lie on all masters"
        assert publisher.live("content:1", {"type": "a.b"}) == 0


def silence_the_master_of(servers: list[RedisServer], topic: str) -> None:
    """Its machine is gone: whoever asks it waits for an answer that never comes."""
    for server in servers:
        if server.client().role()[0] == "master" and server.client().keys(f"carillon:{topic}"):
            assert server.process
            server.process.send_signal(signal.SIGSTOP)
            return
    raise AssertionError(f"no master has {topic}")


def test_a_master_of_a_cluster_is_gone_and_another_takes_over(tmp_path: Path) -> None:
    with cluster(tmp_path, replicas=1) as servers:
        # The first place that it knows is the one that goes.
        places = ",".join(f"127.0.0.1:{server.port}" for server in servers[:3])
        publisher = Publisher(f"redis-cluster://{places}", source="cms", patience=60, timeout=1.0)
        publisher.record("content:1", {"type": "content.saved"})
        silence_the_master_of(servers, "content:1")
        assert publisher.record("content:1", {"type": "content.saved"})
        publisher.record_many([("content:1", {"type": "content.saved"}) for _ in range(20)])


async def test_a_master_of_a_cluster_is_gone_for_asyncio(tmp_path: Path) -> None:
    with cluster(tmp_path, replicas=1) as servers:
        places = ",".join(f"127.0.0.1:{server.port}" for server in servers[:3])
        publisher = AsyncPublisher(f"redis-cluster://{places}", patience=60, timeout=1.0)
        await publisher.record("content:1", {"type": "content.saved"})
        silence_the_master_of(servers, "content:1")
        assert await publisher.record("content:1", {"type": "content.saved"})
        await publisher.close()


async def test_cluster_for_asyncio(tmp_path: Path) -> None:
    with cluster(tmp_path) as servers:
        publisher = AsyncPublisher(f"redis-cluster://127.0.0.1:{servers[0].port}", patience=30)
        assert len(await publisher.record([f"content:{n}" for n in range(20)], {"type": "content.moved"})) == 20
        await publisher.close()


@pytest.fixture
def watched(own_redis: RedisServer, tmp_path: Path) -> Iterator[str]:
    """The address of a sentinel that watches a master, `own_redis`, and its replica."""
    replica = RedisServer(tmp_path / "replica", "--replicaof", "127.0.0.1", str(own_redis.port), "--save", "")
    (tmp_path / "sentinel").mkdir()
    lines = [f"sentinel monitor main 127.0.0.1 {own_redis.port} 1", "sentinel down-after-milliseconds main 1000", "sentinel failover-timeout main 3000"]
    (tmp_path / "sentinel" / "sentinel.conf").write_text("\n".join(lines) + "\n")
    sentinel = RedisServer(tmp_path / "sentinel", program="redis-sentinel")
    try:
        eventually(lambda: sentinel.client().execute_command("SENTINEL", "REPLICAS", "main"))
        eventually(lambda: replica.client().function_list() and replica.client().info("replication")["master_link_status"] == "up")
        yield f"redis-sentinel://127.0.0.1:{sentinel.port}/main"
    finally:
        sentinel.stop()
        replica.stop()


def test_behind_a_sentinel_another_master_takes_over(watched: str, own_redis: RedisServer) -> None:
    publisher = Publisher(watched, patience=60, timeout=1.0)
    assert publisher.record("comments:1", {"type": "a.b"}).endswith("-1")
    own_redis.stop()
    publisher.record("comments:1", {"type": "a.c"})
    assert [event["type"] for event in log_of(publisher.client, "comments:1")][-1] == "a.c"


async def test_behind_a_sentinel_for_asyncio(watched: str, own_redis: RedisServer) -> None:
    publisher = AsyncPublisher(watched, patience=60, timeout=1.0)
    assert (await publisher.record("comments:1", {"type": "a.b"})).endswith("-1")
    own_redis.stop()
    assert await publisher.record("comments:1", {"type": "a.c"})
    await publisher.close()


async def test_asyncio(store: RedisServer) -> None:
    publisher = AsyncPublisher(store.url, source="cms")
    assert (await publisher.record("comments:1", {"type": "a.b"})).endswith("-1")
    results = await publisher.record_many([("comments:1", {"type": "a.c"}), ("comments:1", {"no": "type"})])
    assert results[0].positions[0].endswith("-2") and isinstance(results[1].error, Refused)
    assert await publisher.live("comments:1", {"type": "a.b"}) == 0
    await publisher.close()
