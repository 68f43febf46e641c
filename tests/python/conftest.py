"""Starts the real binary on real warehouses for the tests over the wire."""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import threading

import adbc_driver_flightsql.dbapi as flightsql
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def binary():
    path = os.environ.get("FEATUREFLIGHT_BIN")
    if not path:
        pytest.exit("set FEATUREFLIGHT_BIN to the featureflight binary (tests/run does)", returncode=2)
    return path


class Server:
    """One `featureflight serve` (or `demo`) process; its log is kept for assertions."""

    def __init__(self, *arguments, command="serve", env=None, cwd=None):
        self.process = subprocess.Popen(
            [binary(), command, "--listen", "127.0.0.1:0", *arguments], cwd=cwd,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **(env or {})})
        self.log, self.uri = [], None
        ready = threading.Event()

        def read():
            with self.process.stdout as lines:
                for line in lines:
                    self.log.append(line)
                    # The demo says how to connect when its tour is over.
                    found = re.search(r"(?:listening on|featureflight sql --url) (grpc://127\.0\.0\.1:\d+)", line)
                    if found:
                        self.uri = found.group(1)
                        ready.set()
            ready.set()

        threading.Thread(target=read, daemon=True).start()
        if not ready.wait(120) or self.uri is None:
            self.process.kill()
            raise RuntimeError("the server did not start:\n" + "".join(self.log))

    def connect(self, **options):
        return flightsql.connect(self.uri, autocommit=True, **options)

    def rows(self, sql, parameters=None):
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            return cursor.fetchall()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@contextlib.contextmanager
def serving(*arguments, **options):
    server = Server(*arguments, **options)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()
