#!/usr/bin/env python3
"""Reads an Arrow file back over the wire in Python: by ADBC from a server of ours, to which it is uploaded, and from ROAPI,
another Flight SQL server, and by pyarrow from its own Flight server (Arrow C++). Both have it in memory.

    adbc_wire.py FILE.arrow WAREHOUSE [--rounds 5]

Needs FEATUREFLIGHT_BIN. Prints one JSON line: medians of megabytes per second, counted as the table is in memory.
"""
import argparse
import contextlib
import json
import multiprocessing
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa
import pyarrow.flight as flight


ROAPI = pathlib.Path(sys.executable).with_name("roapi")


class FromMemory(flight.FlightServerBase):
    def __init__(self, table):
        super().__init__("grpc://127.0.0.1:0")
        self.table = table

    def do_get(self, context, ticket):
        return flight.RecordBatchStream(self.table)


def from_memory(file, ports):
    server = FromMemory(pa.ipc.open_file(file).read_all())
    ports.put(server.port)
    server.serve()


def timed(runs, name, table, read):
    started = time.perf_counter()
    answer = read()
    runs.setdefault(name, []).append(table.nbytes / 1e6 / (time.perf_counter() - started))
    if answer.num_rows != table.num_rows:
        raise SystemExit(f"{name}: {answer.num_rows} rows instead of {table.num_rows}")


@contextlib.contextmanager
def listening(line, *command):
    """A server in a process of its own and the address that it says in a `line` of its log."""
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield "grpc://" + next(found.group(1) for text in server.stdout if (found := re.search(line, text)))
    finally:
        server.terminate()
        server.wait()


def ours(warehouse):
    return listening(r"listening on grpc://(\S+)", os.environ["FEATUREFLIGHT_BIN"], "serve", "--listen", "127.0.0.1:0", "--warehouse", warehouse)


def roapi(file):
    """None where it is not installed."""
    if not ROAPI.exists():
        return contextlib.nullcontext()
    ports = [part for kind in ("flight-sql", "http", "postgres") for part in (f"--addr-{kind}", "127.0.0.1:0")]
    return listening(r"on (\S+) for FlightSQL", ROAPI, "-t", f"uploaded={file},format=arrow", *ports)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("file")
    p.add_argument("warehouse")
    p.add_argument("--rounds", type=int, default=5)
    a = p.parse_args()
    table = pa.ipc.open_file(a.file).read_all()
    ports = multiprocessing.Queue()
    peer = multiprocessing.Process(target=from_memory, args=(a.file, ports), daemon=True)
    peer.start()
    try:
        known = flight.FlightClient(f"grpc://127.0.0.1:{ports.get()}")
        runs = {}
        with contextlib.ExitStack() as open_until_then:
            addresses = {"ours by ADBC": ours(a.warehouse), "ROAPI by ADBC": roapi(a.file)}
            addresses = {name: open_until_then.enter_context(server) for name, server in addresses.items()}
            connections = {name: open_until_then.enter_context(flightsql.connect(address, autocommit=True)) for name, address in addresses.items() if address}
            cursors = {name: open_until_then.enter_context(connection.cursor()) for name, connection in connections.items()}
            cursors["ours by ADBC"].adbc_ingest("uploaded", table, mode="create", temporary=True)

            def adbc(cursor):
                cursor.execute("SELECT * FROM uploaded")
                return cursor.fetch_arrow_table()

            for _ in range(a.rounds):
                for name, cursor in cursors.items():
                    timed(runs, name, table, lambda: adbc(cursor))
                timed(runs, "Arrow C++ by pyarrow", table, lambda: known.do_get(flight.Ticket(b"")).read_all())
        print(json.dumps({"engine": "adbc-wire", "rows": table.num_rows, "mb": round(table.nbytes / 1e6, 1),
                          "mb_per_s": {name: round(statistics.median(rates)) for name, rates in runs.items()}}))
    finally:
        peer.terminate()


if __name__ == "__main__":
    main()
