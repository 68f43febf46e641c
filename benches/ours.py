#!/usr/bin/env python3
"""Runs our side of the table over a folder that make_history.py wrote, into a Parquet file.

    ours.py pit|state DIR OUT      needs FEATUREFLIGHT_BIN (a release build), adbc-driver-flightsql, pyarrow

Starts a fresh `featureflight serve`, sends one statement through ADBC and writes the batches as they
arrive. The spine is served as a raw table: a Glue table is put beside the feature group's JSON.
Prints one JSON line: engine, seconds (statement sent to file closed), peak_rss_mb of the server and
client_peak_rss_mb, rows, matched.
"""
import json
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import time

QUERIES = {
    "pit": "SELECT * FROM point_in_time_join(TABLE(bench.spine), 'customers')",
    "state": "SELECT * FROM features.customers",
}


def share_spine(folder):
    """Makes DIR/spine.parquet readable as bench.spine while the server runs; the peers read every
    Parquet file below warehouse/s3, so it does not stay there."""
    target = folder / "warehouse/s3/bench-spine/spine.parquet"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / "spine.parquet", target)
    tables = folder / "warehouse/glue-tables"
    tables.mkdir(exist_ok=True)
    (tables / "spine.json").write_text(json.dumps({"Table": {
        "DatabaseName": "bench", "Name": "spine", "TableType": "EXTERNAL_TABLE",
        "StorageDescriptor": {
            "Columns": [{"Name": "customer_id", "Type": "string"}, {"Name": "ts", "Type": "timestamp"},
                        {"Name": "label", "Type": "bigint"}],
            "Location": "s3://warehouse/bench-spine/",
            "SerdeInfo": {
                "SerializationLibrary": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"},
        }}}))


def main():
    what, folder, out = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
    share_spine(folder)
    server = subprocess.Popen(
        [os.environ["FEATUREFLIGHT_BIN"], "serve", "--warehouse", str(folder / "warehouse"),
         "--listen", "127.0.0.1:0"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        uri = next(found.group(1) for line in server.stdout
                   if (found := re.search(r"listening on (grpc://\S+)", line)))
        import adbc_driver_flightsql.dbapi as flightsql
        import pyarrow.parquet as pq
        started = time.monotonic()
        with flightsql.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:
            cursor.execute(QUERIES[what])
            reader = cursor.fetch_record_batch()
            with pq.ParquetWriter(out, reader.schema) as writer:
                for batch in reader:
                    writer.write_batch(batch)
        seconds = time.monotonic() - started
        status = pathlib.Path(f"/proc/{server.pid}/status").read_text()
        peak = int(re.search(r"VmHWM:\s+(\d+)", status).group(1)) / 1024
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(folder / "warehouse/s3/bench-spine")
    column = pq.read_table(out, columns=["visits"]).column("visits")
    print(json.dumps({
        "engine": f"featureflight {what}", "seconds": round(seconds, 2), "peak_rss_mb": round(peak),
        "client_peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "rows": len(column), "matched": len(column) - column.null_count}))


if __name__ == "__main__":
    main()
