#!/usr/bin/env python3
"""State now of the same group on DuckDB: the row_number() = 1 query of the AWS documentation.

    state_peers.py DIR OUT         needs duckdb; two threads; prints one JSON line as peers.py does
"""
import json
import resource
import sys
import time

import duckdb


def main():
    folder, out = sys.argv[1:3]
    c = duckdb.connect()
    c.execute("SET threads=2; SET TimeZone='UTC'")
    started = time.monotonic()
    c.execute(f"""
        COPY (SELECT * EXCLUDE (rank, is_deleted) FROM (
          SELECT *, row_number() OVER (PARTITION BY customer_id
            ORDER BY event_time::TIMESTAMPTZ DESC, api_invocation_time DESC, write_time DESC) AS rank
          FROM read_parquet('{folder}/warehouse/s3/*/sagemaker/**/*.parquet', hive_partitioning=false))
        WHERE rank = 1 AND NOT is_deleted) TO '{out}' (FORMAT parquet)""")
    seconds = time.monotonic() - started
    rows = c.execute(f"SELECT count(*) FROM '{out}'").fetchone()[0]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"engine": "duckdb state", "seconds": round(seconds, 2), "peak_rss_mb": round(peak), "rows": rows}))


if __name__ == "__main__":
    main()
