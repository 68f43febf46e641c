"""A TCP relay on loopback whose connections can be cut, and which notes what passes: when the server said something, and how
many streams of rows were asked for."""

import socket
import threading
import time

# In every DoGet of a result, which nothing compresses.
TICKET = b"TicketStatementQuery"


class Proxy:
    def __init__(self, target):
        self.target, self.open = target, []
        self.heard, self.fetches = [], 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()
        self.cut()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.target))
            self.open += [client, server]
            for source, sink, note in ((client, server, self._asked()), (server, client, self._said)):
                threading.Thread(target=self._relay, args=(source, sink, note), daemon=True).start()

    def _said(self, _):
        self.heard.append(time.monotonic())

    def _asked(self):
        rest = b""

        def note(data):
            nonlocal rest
            data = rest + data
            self.fetches += data.count(TICKET)
            rest = data[-len(TICKET) + 1:]

        return note

    @staticmethod
    def _relay(source, sink, note):
        try:
            while data := source.recv(1 << 16):
                note(data)
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            end.close()

    def cut(self):
        """Ends every open connection; new ones are accepted."""
        for end in self.open:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        self.open.clear()
