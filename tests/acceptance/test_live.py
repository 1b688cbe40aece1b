"""Live events (bare PUBLISH): nothing is kept, so whoever was away is told that he may have missed some, and only he."""

import asyncio

from kit.editors import Editor
from kit.stage import note, until


async def left(node, topics, sub="anna"):
    """What a session that was in step just now resumes with."""
    editor = await Editor.open(node, sub, topics)
    await editor.close()
    return editor.resume


async def passed(node, mark):
    """A session that was in step after the mark (Redis' clock, ms): its `at` says so."""
    editor = await Editor.open(node, "late", ["comments:1", "projects"])

    async def beyond():
        while editor.at <= mark:
            await editor.in_step()
            await asyncio.sleep(0.05)
        return True

    await asyncio.wait_for(beyond(), 20)
    await editor.close()
    return editor.resume


def redis_now(site):
    with site.redis.client() as client:
        seconds, micros = client.time()
    return seconds * 1000 + micros // 1000


async def test_only_who_was_last_in_step_before_the_last_live_event_of_an_area_is_told_live(site):
    """Before it: `resync` (`live`). After it, or in an area without live events: an exact replay."""
    here, there = site.node(probe__seconds=1), site.node(probe__seconds=1)
    before = await left(here, ["comments:1", "projects"])
    witness = await Editor.open(here, "bert", ["comments:1"])
    site.live("comments:1", note(1))
    await witness.until("the live event", lambda e: e.numbers() == [1])
    assert "position" not in witness.events()[0]
    told = redis_now(site)
    assert witness.resyncs() == [], "who was there is told nothing"

    for node in (here, there):
        editor = await Editor.open(node, "anna", ["comments:1", "projects"], resume=before)
        await editor.until("told", lambda e: {t for t, _ in e.resyncs()} >= {"comments:1", "comments"})
        await editor.in_step()
        assert {reason for _, reason in editor.resyncs()} == {"live"}
        assert "projects" not in {topic for topic, _ in editor.resyncs()}, "an area without live events"
        await editor.close()
        no_time = await Editor.open(node, "anna", ["comments:1"], resume={"positions": before["positions"]})
        await no_time.until("told", lambda e: ("comments:1", "live") in e.resyncs())

    after = await passed(here, told + 2500)
    site.record_all("comments:1", [note(number) for number in range(10, 30)])
    for node in (here, there):
        editor = await Editor.open(node, "anna", ["comments:1", "projects"], resume=after)
        await editor.until("the replay", lambda e: 29 in e.numbers())
        await editor.in_step()
        assert editor.numbers() == list(range(10, 30)) and editor.resyncs() == []


async def test_at_never_runs_ahead_of_proof(site):
    """A session that saw a live event and left at once may not claim to have been in step after it."""
    node = site.node(probe__seconds=1)
    editor = await Editor.open(node, "anna", ["comments:1"])
    for number in range(5):
        await asyncio.to_thread(site.live, "comments:1", note(number))
        await editor.until("it", lambda e: number in e.numbers())
        await editor.in_step()
        assert editor.at <= redis_now(site), "a time that Redis has not reached"
    await editor.close()
    missed = await Editor.open(node, "bert", ["comments:1"])
    site.live("comments:1", note(9))
    await missed.until("it", lambda e: e.numbers() == [9])
    back = await Editor.open(node, "anna", ["comments:1"], resume=editor.resume)
    await back.until("told", lambda e: ("comments:1", "live") in e.resyncs())


async def test_a_recorded_only_area_refuses_live_events(site):
    """Not delivered, counted, logged, no mark: who was away gets an exact replay. HTTP says why."""
    node = site.node(areas__recorded_only=["comments"], probe__seconds=1)
    before = await left(node, ["comments:1"])
    editor = await Editor.open(node, "bert", ["comments:1", "projects"])
    counted = node.metric("carillon_events_invalid_total") or 0
    site.live("comments:1", note(1))
    await until("counted", lambda: (node.metric("carillon_events_invalid_total") or 0) == counted + 1)
    status, problem = node.publish({"topic": "comments:1", "event": note(2)}, "?live=1")
    assert status == 400 and "recorded" in problem["detail"]
    site.record("comments:1", note(3))
    site.live("projects", note(4))
    await editor.until("the recorded one", lambda e: 3 in e.numbers())
    await editor.until("the live one of another area", lambda e: 4 in e.numbers())
    assert sorted(editor.numbers()) == [3, 4]
    assert "recorded_only" in node.output()
    back = await Editor.open(node, "anna", ["comments:1"], resume=before)
    await back.until("the replay", lambda e: 3 in e.numbers())
    await back.in_step()
    assert back.numbers() == [3] and back.resyncs() == []


async def test_a_wildcard_session_is_told_live_after_any_absence(site):
    """`area:*` has no positions."""
    node = site.node()
    resume = await left(node, ["comments:*"])
    assert "comments:*" not in resume["positions"]
    editor = await Editor.open(node, "anna", ["comments:*"], resume=resume)
    await editor.until("told", lambda e: "comments:*" in {topic for topic, _ in e.resyncs()})
    site.record("comments:77", note(1))
    await editor.until("the event", lambda e: e.numbers() == [1])
