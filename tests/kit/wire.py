"""A wire between a publisher and Redis on which things go wrong at the call of a function, one fault a call.

    cut-before    the connection ends before Redis gets the call
    cut-after     Redis has carried it out; the connection ends before the answer is through
    silence       Redis gets nothing, and nothing is answered
    -LOADING …    Redis gets nothing; this is the answer

Passes bytes on otherwise, and remembers what was called.
"""

import socket
import threading


class Wire:
    """Listens on a port of its own and passes on to `port`."""

    def __init__(self, port, *faults):
        self.port, self.faults, self.calls = port, list(faults), []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.sockets = [self.listener]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def own_port(self):
        return self.listener.getsockname()[1]

    def stop(self):
        for each in self.sockets:
            end(each)

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
                server = socket.create_connection(("127.0.0.1", self.port))
            except OSError:
                return
            self.sockets += [client, server]
            cut = threading.Event()
            threading.Thread(target=self._up, args=(client, server, cut), daemon=True).start()
            threading.Thread(target=self._down, args=(client, server, cut), daemon=True).start()

    def _up(self, client, server, cut):
        try:
            while data := client.recv(1 << 20):
                # What the publishers of these tests send is small: a call comes in one piece.
                if b"FCALL" in data or b"PUBLISH" in data:
                    self.calls.append(data)
                    fault = self.faults.pop(0) if self.faults else None
                    if fault == "cut-before":
                        break
                    if fault == "silence":
                        continue
                    if fault and fault.startswith("-"):
                        client.sendall(fault.encode() + b"\r\n")
                        continue
                    if fault == "cut-after":
                        cut.set()
                server.sendall(data)
        except OSError:
            pass
        if not cut.is_set():
            end(client)
            end(server)

    def _down(self, client, server, cut):
        try:
            while data := server.recv(1 << 20):
                if cut.is_set():
                    break
                client.sendall(data)
        except OSError:
            pass
        end(client)
        end(server)


def end(what):
    """Ends both directions, so that whoever reads wakes up."""
    try:
        what.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    what.close()
