"""One driver under test: a process that answers a JSON object on a line with another.

A request is `{"op": ..., ...}`; the answer `{"ok": ...}`, `{"error": "what the driver said"}` or
`{"not_offered": "why"}`. The operations:

| op | fields | ok |
|---|---|---|
| about | | versions by package |
| connect | host, port, headers, user and password or null | null; closes the connection before |
| close | | null |
| query | sql, parameters: a list of `{"type", "value"}` or null | `{"columns": [...], "rows": [[...]]}` |
| run | sql | null: a statement without rows |
| drain | sql | `{"rows": n, "sums": {column: number}}`, added up from what the driver handed out; with `tasks`, how many of them read, where the tool has tasks |
| update | sql, rows: null or lists of parameters | the number of rows written, as the driver says, or null where it says nothing |
| browse | | `catalogs`, `schemas`, `tables` as `[schema, table]`, `columns` as `[schema, table, column]`, `keys` as `[schema, table, column]`; null where not offered |
| option | name, value | null: a session option set through the driver's own API |
| upload | name, columns, rows | null: a temporary table of the session |
| cancel | sql, after | seconds from the driver's cancel to the end of the call |
| chart | table or sql, axis, grain, metrics, time_range | the rows of a saved chart: the axis and the metrics, SQL by label |

A cell is null or text: integers and decimals in digits, doubles as `float()` reads them, binary in hexadecimal, dates and
instants in ISO 8601 (an instant without offset is UTC), intervals and durations as ISO durations, nested values as JSON of such cells.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading


class Refused(Exception):
    """The driver, or the server through it, said no; the text is what a user would read."""


class NotOffered(Exception):
    """The driver has no such thing; the text says so in its terms."""


class Tool:
    def __init__(self, command, log, env=None):
        self.log = open(log, "a")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, env=env,
            start_new_session=True)
        self.answers, self.ended = queue.Queue(), False
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            if line.startswith("{"):
                self.answers.put(json.loads(line))
        self.ended = True
        self.answers.put({"died": True})

    def ask(self, op, seconds=120, **fields):
        self.process.stdin.write(json.dumps({"op": op, **fields}) + "\n")
        self.process.stdin.flush()
        try:
            answer = self.answers.get(timeout=seconds)
        except queue.Empty:
            self.stop()
            raise AssertionError(f"no answer to {op} within {seconds} s") from None
        assert "died" not in answer, f"the process ended at {op}, see its log"
        if "error" in answer:
            raise Refused(answer["error"])
        if "not_offered" in answer:
            raise NotOffered(answer["not_offered"])
        return answer["ok"]

    def alive(self):
        return not self.ended and self.process.poll() is None

    def stop(self):
        """Ends the tool and what it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()
        self.log.close()
