#!/usr/bin/env python3
"""Runs one statement through a fresh server and ADBC, over a folder that make_history.py wrote, into a Snappy Parquet file.

    ours.py DIR SQL OUT [--matched visits] [--memory-limit-mb N] [--s3 URL]

Needs FEATUREFLIGHT_BIN (a release build), adbc-driver-flightsql, pyarrow. Prints one JSON line: engine, seconds (statement
sent to file closed), peak_rss_mb of the server and client_peak_rss_mb, rows, matched.
"""
import argparse
import json
import os
import pathlib
import re
import subprocess
import time

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow.parquet as pq

from peers import peak_rss_mb


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder")
    p.add_argument("sql", help="a statement, or @ and the file it is in")
    p.add_argument("out")
    p.add_argument("--matched", default="visits", help="the column whose values are counted")
    p.add_argument("--memory-limit-mb", type=int)
    p.add_argument("--s3", help="endpoint to read the files from, instead of the folder")
    a = p.parse_args()
    if a.sql.startswith("@"):
        a.sql = pathlib.Path(a.sql[1:]).read_text()
    return a


def environment(a):
    settings = {"ENGINE__TARGET_PARTITIONS": "2", "CATALOG__KIND": "files", "CATALOG__DIRECTORY": f"{a.folder}/warehouse"}
    if a.memory_limit_mb:
        settings["ENGINE__MEMORY_LIMIT"] = f"{a.memory_limit_mb}MiB"
    if a.s3:
        settings["STORAGE__KIND"] = "aws"
    else:
        settings |= {"STORAGE__KIND": "warehouse", "STORAGE__DIRECTORY": f"{a.folder}/warehouse"}
    return os.environ | {f"FEATUREFLIGHT__{key}": value for key, value in settings.items()}


def main():
    a = arguments()
    server = subprocess.Popen(
        [os.environ["FEATUREFLIGHT_BIN"], "serve", "--listen", "127.0.0.1:0"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(a))
    try:
        uri = next(found.group(1) for line in server.stdout
                   if (found := re.search(r"listening on (grpc://\S+)", line)))
        started = time.monotonic()
        with flightsql.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:
            cursor.execute(a.sql)
            reader = cursor.fetch_record_batch()
            with pq.ParquetWriter(a.out, reader.schema) as writer:
                for batch in reader:
                    writer.write_batch(batch)
        seconds = time.monotonic() - started
        peak = peak_rss_mb(server.pid)
    finally:
        server.terminate()
        server.wait()
    column = pq.read_table(a.out, columns=[a.matched]).column(a.matched)
    print(json.dumps({
        "engine": "featureflight over Flight", "seconds": round(seconds, 3), "peak_rss_mb": peak,
        "client_peak_rss_mb": peak_rss_mb(),
        "rows": len(column), "matched": len(column) - column.null_count}))


if __name__ == "__main__":
    main()
