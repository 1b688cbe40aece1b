"""A way to Redis that loses answers."""

import socket
import threading


class Wire:
    """Passes everything on, until a command with `word` comes: that one reaches Redis, and its connection ends without an answer."""

    def __init__(self, port: int, word: bytes) -> None:
        self.target, self.word, self.seen = port, word, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass, args=(client,), daemon=True).start()

    def _pass(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self.target)) as server:
            while data := client.recv(65_536):
                server.sendall(data)
                answer = server.recv(65_536)
                if self.word in data:
                    self.seen += 1
                    return
                client.sendall(answer)

    def close(self) -> None:
        self.listener.close()
