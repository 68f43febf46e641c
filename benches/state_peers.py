#!/usr/bin/env python3
"""State now of the same group on DuckDB: the row_number() = 1 query of the AWS documentation.

    state_peers.py DIR OUT [--keys NAME]         of the keys in bench.NAME only; the key predicate is below the ranking

Two threads; prints one JSON line as peers.py does. Needs: duckdb.
"""
import argparse
import json
import time

import peers


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder")
    p.add_argument("out")
    p.add_argument("--keys")
    a = p.parse_args()
    c = peers.duck()
    group = peers.Group(c, a.folder, "customers", False)
    instant = "event_time::TIMESTAMPTZ" if group.text else "to_timestamp(event_time)"
    keys = f"WHERE customer_id IN (SELECT customer_id FROM '{a.folder}/warehouse/s3/bench/{a.keys}/{a.keys}.parquet')" if a.keys else ""
    started = time.monotonic()
    c.execute(f"""
        COPY (SELECT * EXCLUDE (rank, is_deleted) FROM (
          SELECT *, row_number() OVER (PARTITION BY customer_id
            ORDER BY {instant} DESC, api_invocation_time DESC, write_time DESC) AS rank
          FROM read_parquet('{group.files}', hive_partitioning=false) {keys})
        WHERE rank = 1 AND NOT is_deleted) TO '{a.out}' (FORMAT parquet)""")
    seconds = time.monotonic() - started
    peak = peers.peak_rss_mb()
    rows = c.execute(f"SELECT count(*), count(visits) FROM '{a.out}'").fetchone()
    print(json.dumps({"engine": "duckdb", "seconds": round(seconds, 3), "peak_rss_mb": peak,
                      "rows": rows[0], "matched": rows[1]}))


if __name__ == "__main__":
    main()
