"""Coming back: exactly what was missed, or an honest `resync` with its reason; on any node."""

import asyncio

import pytest

from kit.editors import Editor
from kit.stage import note, until


async def missed(site, node, topics=("comments:1",)):
    """A session that was in step and left: what it resumes with."""
    editor = await Editor.open(node, "anna", topics)
    for topic in topics:
        site.record(topic, note(-1))
    await editor.until("in step", lambda e: len(e.events()) == len(topics))
    await editor.close()
    return editor.resume


async def test_two_hundred_events_missed_are_replayed_on_another_node_exactly_and_in_order(site):
    """And what is published while the replay goes on follows behind it."""
    here, there = site.node(), site.node()
    resume = await missed(site, here)
    ids = site.record_all("comments:1", [note(number) for number in range(200)])
    editor = await Editor.open(there, "anna", ["comments:1"], resume=resume)
    later = [await asyncio.to_thread(site.record, "comments:1", note(200 + number)) for number in range(20)]
    await editor.until("the last", lambda e: 219 in e.numbers())
    await editor.in_step()
    assert editor.numbers() == list(range(220))
    assert editor.recorded("comments:1") == [*ids, *later]
    assert editor.resyncs() == []
    assert editor.of("welcome")[0]["positions"]["comments:1"] == resume["positions"]["comments:1"]


async def test_resuming_under_fire_misses_and_repeats_nothing(site):
    """Ten sessions resume on three nodes, three times each, while events are published all the time."""
    nodes = site.three()
    resume = await missed(site, nodes[0])
    going = True

    async def publish():
        number = 0
        while going:
            await asyncio.to_thread(site.record, "comments:1", note(number))
            number += 1
        return number

    publishing = asyncio.create_task(publish())

    async def come_and_go(which):
        mine, got = resume, []
        for turn in range(3):
            editor = await Editor.open(nodes[(which + turn) % 3], "anna", ["comments:1"], resume=mine)
            await editor.until("thirty events", lambda e: len(e.events()) >= 30, 40)
            await editor.close()
            assert editor.resyncs() == []
            mine = editor.resume
            got += editor.numbers()
        return got

    results = await asyncio.gather(*(come_and_go(which) for which in range(10)))
    going = False
    assert await publishing >= 90
    for got in results:
        assert got == list(range(len(got)))


async def test_what_the_log_no_longer_holds_is_a_resync_trimmed_and_nothing_before_it(site):
    """1,500 events against a log of 1,000. Behind the resync the stream goes on from its positions."""
    here, there = site.node(), site.node()
    resume = await missed(site, here)
    ids = site.record_all("comments:1", [note(number) for number in range(1500)])
    assert len(site.log("comments:1")) == 1000
    editor = await Editor.open(there, "anna", ["comments:1"], resume=resume)
    resync = await editor.message("resync")
    assert (resync["topics"], resync["reason"]) == (["comments:1"], "trimmed")
    assert resync["spread_ms"] >= 5000
    assert resync["positions"]["comments:1"].endswith("." + ids[-1])
    assert "comments:1" not in editor.of("welcome")[0]["positions"], "a topic that is owed a resync is absent"
    site.record("comments:1", note(1500))
    await editor.until("the next", lambda e: e.numbers())
    await editor.in_step()
    assert editor.numbers() == [1500] and editor.resyncs() == [("comments:1", "trimmed")]
    again = await Editor.open(here, "anna", ["comments:1"], resume=editor.resume)
    await again.in_step()
    assert again.resyncs() == [] and again.events() == []


async def test_the_edge_of_the_log_is_still_a_replay(site):
    """A position whose successor is the oldest entry is not trimmed: nothing is missing."""
    node = site.node(log__length=100)
    resume = await missed(site, node)
    site.record_all("comments:1", [note(number) for number in range(100)])
    there = site.node(log__length=100)
    editor = await Editor.open(there, "anna", ["comments:1"], resume=resume)
    await editor.until("all", lambda e: len(e.events()) == 100)
    assert editor.resyncs() == [] and editor.numbers() == list(range(100))


@pytest.mark.parametrize("connected", [False, True], ids=["away", "connected"])
async def test_a_flushed_redis_is_a_resync_log_replaced(site, connected):
    """FLUSHALL and one more event: the log is of another epoch. For those who were away, and for those connected."""
    node = site.node()
    resume = await missed(site, node)
    editor = await Editor.open(node, "anna", ["comments:1"], resume=resume) if connected else None
    with site.redis.client() as client:
        client.flushall()
    site.record("comments:1", note(7))
    editor = editor or await Editor.open(node, "anna", ["comments:1"], resume=resume)
    await editor.until("told", lambda e: ("comments:1", "log-replaced") in e.resyncs())
    site.record("comments:1", note(8))
    await editor.until("the next", lambda e: 8 in e.numbers())
    assert [reason for topic, reason in editor.resyncs() if topic == "comments:1"] == ["log-replaced"]


@pytest.mark.parametrize("options", [(), ("--appendonly", "yes")], ids=["forgetful", "persistent"])
async def test_a_restarted_redis_is_a_resync_redis_changed(new_site, options):
    """A new lineage: for a session that comes back and for one that stayed, which also sees `status`."""
    site = new_site(*options)
    node = site.node(probe__seconds=1)
    resume = await missed(site, node)
    stayed = await Editor.open(node, "bert", ["comments:1"])
    with site.redis.client() as client:
        client.shutdown(nosave=True)
    site.redis.process.wait()
    assert (await stayed.message("status"))["live"] is False
    await until("not ready", lambda: node.readiness()[0] == 503)
    site.redis.start()
    await stayed.until("live again", lambda e: e.of("status")[-1]["live"] is True)
    await stayed.until("told", lambda e: ("comments:1", "redis-changed") in e.resyncs())
    node.ready()
    editor = await Editor.open(node, "anna", ["comments:1"], resume=resume)
    await editor.until("told", lambda e: ("comments:1", "redis-changed") in e.resyncs())
    site.record("comments:1", note(8))
    for session in (stayed, editor):
        await session.until("the next", lambda e: 8 in e.numbers())
        assert session.numbers() == [8]
        assert [reason for topic, reason in session.resyncs() if topic == "comments:1"] == ["redis-changed"]


async def test_positions_that_mean_nothing_are_a_resync_no_position(site):
    """None given, unreadable, of the future: told, never guessed."""
    node = site.node()
    good = await missed(site, node)
    lineage, _, place = good["positions"]["comments:1"].partition(".")
    epoch, seq = place.split("-")
    cases = [
        ({}, "no-position"),
        ({"comments:1": "nonsense"}, "no-position"),
        ({"comments:1": f"{lineage}.{epoch}-{int(seq) + 5}"}, "log-replaced"),
        ({"comments:1": f"{lineage}.{int(epoch) - 1}-{seq}"}, "log-replaced"),
        ({"comments:1": f"{'0' * len(lineage)}.{place}"}, "redis-changed"),
    ]
    for positions, reason in cases:
        resume = {"at": good["at"], "positions": {"comments": good["positions"]["comments"], **positions}}
        editor = await Editor.open(node, "anna", ["comments:1"], resume=resume)
        await editor.until(f"told {reason} for {positions}", lambda e: e.resyncs())
        assert editor.resyncs() == [("comments:1", reason)], positions
        await editor.close()


async def test_five_hundred_editors_who_resume_one_topic_at_once_cost_one_history_read_per_node(site):
    """Counted by Redis itself; the nodes are new, so that they have nothing of their own to answer from."""
    first = site.node()
    resume = await missed(site, first)
    site.record_all("comments:1", [note(number) for number in range(50)])
    first.stop()
    nodes = [site.node(), site.node()]
    before = site.redis.calls("xrange", "xread", "xreadgroup")
    editors = await asyncio.gather(*(Editor.open(nodes[n % 2], f"e{n}", ["comments:1"], resume=resume) for n in range(500)))
    for editor in editors:
        await editor.until("the replay", lambda e: 49 in e.numbers(), 40)
        assert editor.numbers() == list(range(50)) and editor.resyncs() == []
    reads = site.redis.calls("xrange", "xread", "xreadgroup") - before
    # The function fetches a log in pieces of 16 entries, so one read of 50 is four calls.
    assert 4 <= reads <= 2 * 4, f"{reads} calls to read 50 events, for two nodes"
    await asyncio.gather(*(editor.close() for editor in editors))
