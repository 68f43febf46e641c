"""What the adapters written in Python share: the loop that answers requests (`tool.py` has them) and the text of a cell.

Runs in each tool's own environment, so it imports nothing that is not Python's own.
"""

import datetime as dt
import decimal
import json
import os
import sys
import threading
import time


class NotOffered(Exception):
    """The driver has no such thing."""


class Adapter:
    """Operations a driver lacks are inherited: they say so."""

    def connect(self, host, port, headers, user, password):
        raise NotImplementedError

    def explained(self, error):
        """What a user reads of `error`."""
        return str(error) or repr(error)

    def run(self, sql):
        self.query(sql, None)

    def update(self, sql, rows):
        """On the path of queries a write answers one row, with its count."""
        if rows:
            raise NotOffered("no batches of parameters")
        return int(self.query(sql, None)["rows"][0][0])

    def option(self, name, value):
        raise NotOffered("no session options")

    def upload(self, name, columns, rows):
        raise NotOffered("no uploads")

    def cancel(self, sql, after):
        raise NotOffered("no cancel")

    def cancelling(self, run, cancel, after):
        """Seconds from `cancel`, called `after` seconds, to the end of `run`, which must fail."""
        failed = []

        def attempt():
            try:
                run()
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join(after)
        if failed:
            raise failed[0]
        began = time.monotonic()
        cancel()
        thread.join(30)
        if not failed:
            raise RuntimeError("the statement went on after it was cancelled")
        return time.monotonic() - began


def text(value):
    """The cell of a Python value."""
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()
    if value is None or type(value).__name__ in ("NaTType", "NAType"):
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    if isinstance(value, (dt.datetime, dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return f"PT{value // dt.timedelta(microseconds=1) / 1e6:.6f}S"
    if type(value).__name__ == "MonthDayNano":
        return f"P{value.months}M{value.days}DT{decimal.Decimal(value.nanoseconds).scaleb(-9):f}S"
    if isinstance(value, list) and value and all(isinstance(entry, tuple) and len(entry) == 2 for entry in value):
        value = dict(value)
    if isinstance(value, dict):
        return json.dumps({key: text(inner) for key, inner in value.items()})
    if isinstance(value, (list, tuple)) or hasattr(value, "tolist"):
        return json.dumps([text(inner) for inner in value])
    return repr(value) if isinstance(value, float) else str(value)


def python(parameter):
    """The Python value of a request's parameter."""
    kind, value = parameter["type"], parameter["value"]
    if value is None:
        return None
    kinds = {"text": str, "int": int, "double": float, "decimal": decimal.Decimal, "timestamp": dt.datetime.fromisoformat,
             "boolean": "true".__eq__, "date": dt.date.fromisoformat, "binary": bytes.fromhex}
    return kinds[kind](value)


def total(values):
    """The sum of what is no null."""
    return sum(value for value in values if value is not None)


def answer(adapter, request):
    operation = request.pop("op")
    try:
        return {"ok": getattr(adapter, operation)(**request)}
    except NotOffered as error:
        return {"not_offered": str(error)}
    except BaseException as error:
        # A panic of a library in Rust is no Exception.
        return {"error": adapter.explained(error)}


def main(adapter):
    """Answers until the end of the input. What libraries print goes to standard error."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        out.write(json.dumps(answer(adapter, json.loads(line)), default=lambda number: number.item()) + "\n")
        out.flush()
    os._exit(0)
