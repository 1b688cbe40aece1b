"""What every proxy of deploy/proxy must do, asked of the site in proxy_site.py; `checks()` lists the questions.

Sessions that stay silent for longer than a proxy's usual 60 s run for all at once.
"""

import asyncio
import contextlib
import json
import re
import signal
from functools import partial

import websockets
import websockets.exceptions

import files

from kit.rig.editors import mint, until

from proxy_site import HOST, ROOT, SECRET, request, whole

SILENCE = 65  # seconds; nginx, HAProxy's common examples and most cloud balancers cut at 60


async def next_event(socket_, seconds=10):
    while True:
        message = json.loads(await asyncio.wait_for(socket_.recv(), seconds))
        if message["type"] == "event":
            return message


async def starts(site, proxy):
    proxy.start()
    await until(lambda: site._open(proxy.port, proxy.address), 10, "the proxy listens")

    async def healthy():
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            status, _, _, writer = await proxy.get("/realtime/config")
            writer.close()
            return status == 200
        return False

    await until(healthy, 10, "a node answers through it")
    status, fields, _, writer = await request(proxy.plain, "GET", "/x", [("Host", HOST)], address=proxy.address)
    writer.close()
    assert status in (301, 308) and fields["location"].startswith("https://"), f"plain HTTP: {status} {fields}"


async def websocket(site, proxy):
    topic, seen, opened = site.topic(), set(), 0

    async def one():
        nonlocal opened
        async with proxy.session(topic) as (socket_, welcome):
            seen.add(welcome["node"])
            opened += 1
            await site.publish(topic)
            await next_event(socket_)
        return opened >= 6 and len(seen) == 3

    # On a busy machine, a proxy may take a node for ill for a moment.
    await until(one, 20, "sessions on every node")


async def origin(site, proxy):
    try:
        async with proxy.websocket(origin="https://evil.example.com"):
            raise AssertionError("a foreign origin was let in")
    except websockets.exceptions.InvalidStatus as refused:
        assert refused.response.status_code == 403, refused
    # Only the base path goes to the nodes.
    for path, expected in (("/metrics", "the CMS"), ("/", "the CMS"), ("/realtimeless", None)):
        status, fields, reader, writer = await proxy.get(path)
        text = await whole(fields, reader)
        writer.close()
        assert "carillon_" not in text, f"{path} reaches the node's metrics"
        if expected:
            assert (status, text) == (200, expected), f"{path}: {status} {text}"


async def sse(site, proxy):
    topic = site.topic()
    messages, writer = await proxy.sse(topic)
    kind, welcome = await asyncio.wait_for(anext(messages), 10)
    assert kind == "welcome" and welcome["user"] == "anna", (kind, welcome)
    for _ in range(3):
        await site.publish(topic)
        # A buffer would hold it back until many more have come.
        kind, _ = await asyncio.wait_for(anext(messages), 10)
        assert kind == "event", kind
    writer.close()


async def poll(site, proxy):
    topic, token = site.topic(), ("Authorization", f"Bearer {mint(SECRET, 'anna')}")

    async def ask(query):
        status, fields, reader, writer = await proxy.get(f"/realtime/poll?topics={topic}{query}", token)
        answer = json.loads(await whole(fields, reader))
        writer.close()
        assert status == 200, answer
        return answer

    start = await ask("")
    waiting = asyncio.create_task(ask(f"&cursor={start['cursor']}"))
    # The poll hangs until there is something; the second answer comes from whichever node.
    done, _ = await asyncio.wait({waiting}, timeout=0.5)
    assert not done, f"answered at once: {waiting.result()}"
    await site.publish(topic)
    answer = await asyncio.wait_for(waiting, 10)
    assert [message["type"] for message in answer["messages"]] == ["event"], answer


async def drain(site, proxy):
    """A node drains: its sessions come back elsewhere, and whoever connects meanwhile gets another node."""
    topic, refused = site.topic(), 0

    @contextlib.asynccontextmanager
    async def newcomer():
        nonlocal refused
        async with contextlib.AsyncExitStack() as stack:
            session = None
            while session is None:
                try:
                    session = await stack.enter_async_context(proxy.session(topic))
                except websockets.exceptions.InvalidStatus as status:
                    # Caddy does not ask the next node after a 503; nginx and HAProxy do.
                    refused += 1
                    assert proxy.name == "caddy" and status.response.status_code == 503 and refused <= 3, f"refused: {status}"
                except websockets.exceptions.ConnectionClosed as closed:
                    # It was let in just before the node began to drain, and comes again like everybody there.
                    refused += 1
                    assert closed.rcvd and closed.rcvd.code == 1012 and refused <= 3, f"closed: {closed}"
            yield session

    async with contextlib.AsyncExitStack() as stack:
        sessions = [await stack.enter_async_context(proxy.session(topic)) for _ in range(6)]
        leaving = next(node for node in site.nodes if node.name == sessions[0][1]["node"])
        leaving.process.send_signal(signal.SIGTERM)
        newcomers = 0
        while leaving.process.poll() is None:
            async with newcomer():
                newcomers += 1
            await asyncio.sleep(0.05)
        for _ in range(6):
            async with newcomer() as (_, welcome):
                assert welcome["node"] != leaving.name
        assert leaving.process.returncode == 0, f"exit code {leaving.process.returncode}"
        for socket_, welcome in sessions:
            if welcome["node"] == leaving.name:
                with contextlib.suppress(websockets.exceptions.ConnectionClosed):
                    while True:
                        await asyncio.wait_for(socket_.recv(), 2)
                assert socket_.close_code == 1012, f"close code {socket_.close_code}"
        await site.publish(topic)
        for socket_, welcome in sessions:
            if welcome["node"] != leaving.name:
                await next_event(socket_)
    leaving.start()
    await leaving.ready()

    async def again():
        async with newcomer() as (_, welcome):
            return welcome["node"] == leaving.name

    await until(again, 20, f"{leaving.name} gets sessions again")
    return f"{newcomers} sessions opened meanwhile, {refused} of them at the second try"


def questions(site, name):
    """The same for every proxy."""
    proxy = site.proxies[name]
    return [
        (f"{name}: accepts its file without a warning, redirects to https, finds the nodes", partial(starts, site, proxy)),
        (f"{name}: WebSocket passes, events at once, sessions on every node", partial(websocket, site, proxy)),
        (f"{name}: a foreign origin is refused, our own is not; the internal port is out of reach", partial(origin, site, proxy)),
        (f"{name}: SSE is not buffered", partial(sse, site, proxy)),
        (f"{name}: long-poll hangs and answers at once", partial(poll, site, proxy)),
        (f"{name}: while a node drains, newcomers get another one", partial(drain, site, proxy)),
    ]


async def silence(site):
    """A quiet WebSocket and a quiet SSE stream through each proxy, without a heartbeat."""

    async def quiet(proxy):
        topic = site.topic()
        messages, writer = await proxy.sse(topic)
        await anext(messages)
        async with proxy.session(topic) as (socket_, _):
            try:
                early = await asyncio.wait_for(socket_.recv(), SILENCE)
                raise AssertionError(f"{proxy.name}: not silent: {early}")
            except TimeoutError:
                pass
            except websockets.exceptions.ConnectionClosed as closed:
                raise AssertionError(f"{proxy.name} cut a quiet WebSocket: {closed}") from closed
            await site.publish(topic)
            await next_event(socket_)
        try:
            kind, _ = await asyncio.wait_for(anext(messages), 2)
        except StopAsyncIteration:
            raise AssertionError(f"{proxy.name} cut a quiet SSE stream") from None
        assert kind == "event"
        writer.close()

    await asyncio.gather(*(quiet(proxy) for proxy in site.proxies.values()))


async def metrics(site):
    """What a node counts is what docs/operations.md explains, and the dashboard and alerts ask for nothing else."""
    node, topic = site.nodes[0], site.topic()
    url, origin = f"ws://{node.address}:{site.http}/realtime", f"http://{node.address}:{site.http}"
    with contextlib.suppress(websockets.exceptions.InvalidStatus):
        await websockets.connect(url, origin="https://evil.example.com")
    async with websockets.connect(url, origin=origin, compression=None) as socket_:
        hello = {"type": "connect", "token": mint(SECRET, "anna"), "topics": [topic], "resume": {"positions": {}}}
        await socket_.send(json.dumps(hello))
        while json.loads(await asyncio.wait_for(socket_.recv(), 5))["type"] != "resync":
            pass
        await site.publish(topic)
        await next_event(socket_)
        _, writer = await asyncio.open_connection("127.0.0.1", site.redis)
        writer.write(f"PUBLISH carillon:{topic} nonsense\r\n".encode())
        # Sources have metrics once one has reported.
        writer.write(b"FCALL carillon_source 1 carillon:sources cms 300\r\n")
        await writer.drain()
        writer.close()

        async def exposed():
            _, fields, reader, writer = await request(site.internal, "GET", "/metrics", [("Host", "localhost")], address=node.address)
            text = await whole(fields, reader)
            writer.close()
            return text

        async def counted():
            text = await exposed()
            return "carillon_events_invalid_total{" in text and "carillon_source_late{" in text

        await until(counted, 30, "what is no event is counted, and the source known")
        await socket_.send("no JSON")
        with contextlib.suppress(websockets.exceptions.ConnectionClosed):
            while True:
                await asyncio.wait_for(socket_.recv(), 5)
        assert socket_.close_code == 4400, f"close code {socket_.close_code}"

    async def closed():
        return "carillon_sessions_closed_total{" in await exposed()

    # The client hears of its end a moment before the node has counted it.
    await until(closed, 30, "the closed session is counted")
    text = await exposed()
    histograms = set(re.findall(r"^# TYPE (\w+) histogram$", text, re.MULTILINE))
    family = lambda name: next((one for one in histograms if re.fullmatch(rf"{one}_(bucket|count|sum)", name)), name)
    seen = {}
    for name, labels in re.findall(r"^(carillon_\w+)(?:\{(.*)\})? ", text, re.MULTILINE):
        seen.setdefault(family(name), set()).update(set(re.findall(r'(\w+)="', labels)) - {"le"})
    document = (ROOT / "docs/operations.md").read_text()
    explained = {
        name: set(filter(None, labels.split(",")))
        for name, labels in re.findall(r"^\| `(carillon_\w+)(?:\{(.*?)\})?` \|", document, re.MULTILINE)
    }
    differ = {name: (seen.get(name), explained.get(name)) for name in seen | explained if seen.get(name) != explained.get(name)}
    assert not differ, f"labels in /metrics and in docs/operations.md: {differ}"
    drawn, mentioned = ({family(name) for name in names} for names in (files.metrics_used(), re.findall(r"carillon_\w+", document)))
    assert drawn == set(seen), f"drawn: {sorted(drawn - set(seen))} do not exist, {sorted(set(seen) - drawn)} are missing"
    unknown = mentioned - set(seen) - {"carillon_publish", "carillon_positions"}
    assert not unknown, f"mentioned, and not exposed by a node: {sorted(unknown)}"
    return f"{len(seen)} metrics"


def checks(site):
    return [
        *(question for name in site.proxies for question in questions(site, name)),
        (f"sessions that are silent for {SILENCE} s survive in every proxy", partial(silence, site)),
        ("every metric of a node is explained with its labels, every explained one exists, dashboard and alerts use these", partial(metrics, site)),
    ]
