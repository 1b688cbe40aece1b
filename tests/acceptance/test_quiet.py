"""What following costs Redis where nothing happens: measured on a real node and a real Redis.

`CARILLON_QUIET_TOPICS` is how many topics are followed; docs/security.md has the figures of a hundred thousand.
"""

import asyncio
import os

from kit.editors import Editor

TOPICS = int(os.environ.get("CARILLON_QUIET_TOPICS", 10_000))
EACH = 5_000


def used_memory(client):
    return client.info("memory")["used_memory"]


def by_bare_subscriptions(site, names):
    """What Redis keeps for a client that subscribes to the same channels, bytes."""
    with site.redis.client() as client:
        before = used_memory(client)
        listener = client.pubsub()
        for start in range(0, len(names), EACH):
            listener.subscribe(*(f"carillon:{name}" for name in names[start : start + EACH]))
        for _ in names:
            listener.get_message(timeout=20)
        grown = used_memory(client) - before
        listener.close()
    return grown


async def test_a_quiet_topic_costs_redis_at_most_180_bytes_beyond_its_subscription(site):
    names = [f"comments:quiet-{n:06}" for n in range(TOPICS)]
    subscriptions = await asyncio.to_thread(by_bare_subscriptions, site, names)
    node = site.node(
        limits__topics_per_session=EACH + 10, limits__message_bytes=1 << 20, limits__subscriptions_per_second=100_000,
        limits__editor_topics_per_second=0, limits__editor_topics_per_hour=0,
    )
    with site.redis.client() as client:
        # The library and the node's own keys are there before.
        first = await Editor.open(node, "anna", ["comments:first"])
        await first.in_step()
        before, keys = used_memory(client), client.dbsize()
        editors = []
        for start in range(0, TOPICS, EACH):
            editors.append(await Editor.open(node, "anna", names[start : start + EACH]))
        followed = {topic for editor in editors for topic in editor.of("welcome")[0]["positions"]}
        assert followed >= set(names)
        grown = used_memory(client) - before
        each = (grown - subscriptions) / TOPICS
        print(f"{TOPICS} quiet topics: {grown / TOPICS:.0f} bytes each, {subscriptions / TOPICS:.0f} of them subscriptions; {client.dbsize() - keys} keys")
        assert each <= 180, f"{each:.0f} bytes each beyond the subscription"
