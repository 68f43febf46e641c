#!/usr/bin/env python3
"""Writes the files beside it: bloom filters on `Id` as other writers make them.

Each holds the even numbers from 0 to 198 five times, as integers, doubles or text. Needs duckdb and pyarrow.
"""
import datetime as dt
import pathlib

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

HERE = pathlib.Path(__file__).parent
NOON = dt.datetime(2026, 1, 31, 12, tzinfo=dt.timezone.utc)
KINDS = {"integers": int, "doubles": float, "texts": lambda number: f"customer-{number}"}
TYPES = {"integers": pa.int64(), "doubles": pa.float64(), "texts": pa.string()}

con = duckdb.connect()
con.execute("SET TimeZone='UTC'")
for name, make in KINDS.items():
    ids = [make(number) for number in range(0, 200, 2)] * 5
    rows = len(ids)
    times = pa.array([NOON] * rows, pa.timestamp("us", tz="UTC"))
    table = pa.table({
        "Id": pa.array(ids, TYPES[name]),
        "EventTime": pa.array(["2026-01-31T12:00:00Z"] * rows),
        "Visits": pa.array(range(rows), pa.int64()),
        "write_time": times,
        "api_invocation_time": times,
        "is_deleted": pa.array([False] * rows),
    })
    options = {"Id": {"ndv": 100, "fpp": 0.01}}
    pq.write_table(table, HERE / f"pyarrow_{name}.parquet", bloom_filter_options=options, store_schema=False)
    con.execute(f"COPY (SELECT * FROM \"table\") TO '{HERE}/duckdb_{name}.parquet' (FORMAT parquet)")
