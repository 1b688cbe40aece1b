"""What the proxies write into their logs: never a token that a browser put into an address (`token=`).

The proxies log as their programs do by default, and everything that they write is searched, while requests succeed, are
refused, go astray, and break in the middle. `checks()` comes last: it ends the nodes.
"""

import asyncio
import contextlib
import subprocess

from kit.rig.editors import mint, until

SECRET_PART = "kept-out-of-every-log"


def written(site, name):
    """All that a proxy has written: its output, and the files in its folder."""
    texts = [site.work / f"{name}.log", *(path for path in site.proxies[name].folder.rglob("*.log"))]
    return "".join(path.read_text(errors="replace") for path in texts if path.exists())


class Silence:
    """What proxies write into their logs about one topic and one token: nothing."""

    def __init__(self, site, secret, request):
        self.site, self.request = site, request
        self.topic, self.token = site.topic(), mint(secret, "anna")

    def address(self, door):
        return f"/realtime/{door}?topics={self.topic}&token={self.token}&{SECRET_PART}=1"

    def silent(self, name):
        text = written(self.site, name)
        for what in (self.token, self.token.split(".")[1], SECRET_PART, "token="):
            line = next((line for line in text.splitlines() if what in line), None)
            assert line is None, f"{name} wrote {what[:24]} into its log: {line}"
        return text

    async def ask(self, proxy, path, *more):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            status, fields, reader, writer = await proxy.get(path, *more)
            return status, reader, writer
        return None, None, None

    async def good(self):
        for name, proxy in self.site.proxies.items():
            streams = [await self.ask(proxy, self.address(door)) for door in ("events", "poll")]
            assert [status for status, _, _ in streams] == [200, 200], f"{name}: {[status for status, _, _ in streams]}"
            refused = [
                await self.ask(proxy, self.address("events").replace("token=", "token=x")),
                await self.ask(proxy, self.address("events"), ("Upgrade", "websocket")),
                await self.ask(proxy, self.address("nowhere")),
                await self.ask(proxy, self.address("events") + "&more=" + "x" * 9000),
            ]
            assert refused[0][0] == 401, f"{name}: a wrong token got {refused[0][0]}"
            # Whoever starts with http:// is sent to https://, and the address is in the redirection only.
            status, fields, _, writer = await self.request(proxy.plain, "GET", self.address("events"), proxy.headers(), address=proxy.address)
            assert status in (301, 308) and self.token in fields["location"], (name, status, fields)
            for _, _, open_ in [*streams, *refused, (None, None, writer)]:
                if open_:
                    open_.close()

            async def noted():
                return "/realtime/events" in written(self.site, name)

            if name != "caddy":     # logs requests only where they fail
                await until(noted, 5, f"{name} notes a request, without its query")
            self.silent(name)

    async def broken(self):
        """Nodes are killed under an open stream, then nobody listens: both are what a proxy reports as an error."""
        streams = {name: await self.ask(proxy, self.address("events")) for name, proxy in self.site.proxies.items()}
        for name, (status, reader, _) in streams.items():
            assert status == 200, f"{name}: {status}"
            await asyncio.wait_for(reader.readline(), 5)
        for node in self.site.nodes:
            node.process.kill()
            node.process.wait()
        for name, proxy in self.site.proxies.items():
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while await asyncio.wait_for(streams[name][1].read(4096), 10):
                    pass
            for door in ("events", "poll", "config"):
                status, _, writer = await self.ask(proxy, self.address(door))
                assert status in (502, 503, 504), f"{name} without nodes: {status}"
                writer.close()

            async def noted():
                return "/realtime/poll" in written(self.site, name)

            await until(noted, 5, f"{name} notes what failed, without its query")
        # Late lines too: what is written when the proxy ends.
        for name, proxy in self.site.proxies.items():
            proxy.process.terminate()
            try:
                await asyncio.to_thread(proxy.process.wait, 10)
            except subprocess.TimeoutExpired:     # waits for streams of earlier checks
                proxy.process.kill()
                proxy.process.wait()
            self.silent(name)


def checks(site, secret, request):
    silence = Silence(site, secret, request)
    return [
        ("no proxy writes a query of /realtime into its logs: sessions, refusals, redirections", silence.good),
        ("nor where nodes break off or are gone", silence.broken),
    ]
