"""A way from one port of loopback to another that can be cut: `python gate.py PORT TARGET`.

SIGUSR2 cuts it: connections stay open and nothing comes through, as behind a firewall that drops. SIGUSR1 mends it:
the connections of before end, and new ones are passed on.
"""

import asyncio
import contextlib
import signal
import sys


class Gate:
    """Passes bytes on, unless it is cut."""

    def __init__(self, target):
        self.target, self.cut, self.open = target, False, set()

    async def serve(self, reader, writer):
        self.open.add(writer)
        try:
            if self.cut:
                await reader.read()
                return
            there, away = await asyncio.open_connection("127.0.0.1", self.target)
            self.open.add(away)
            await asyncio.gather(self.pass_on(reader, away), self.pass_on(there, writer))
        except OSError:
            pass
        finally:
            writer.close()

    async def pass_on(self, reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if not self.cut:
                    writer.write(data)
                    await writer.drain()
        writer.close()

    def mend(self):
        self.cut = False
        for writer in self.open:
            writer.close()
        self.open.clear()


async def main():
    gate = Gate(int(sys.argv[2]))
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR2, lambda: setattr(gate, "cut", True))
    loop.add_signal_handler(signal.SIGUSR1, gate.mend)
    server = await asyncio.start_server(gate.serve, "127.0.0.1", int(sys.argv[1]))
    async with server:
        await server.serve_forever()


asyncio.run(main())
