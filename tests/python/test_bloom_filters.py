"""Bloom filters that DuckDB and PyArrow wrote on record identifiers rule files out of lookups, and never a record."""

import datetime as dt
import json
import re

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import serving
from sagemaker_layout import description

NOON = dt.datetime(2026, 1, 31, 12, tzinfo=dt.timezone.utc)
KINDS = {
    "integral": ("Integral", pa.int64(), lambda number: number, str),
    "text": ("String", pa.string(), lambda number: f"customer-{number}", lambda key: f"'{key}'"),
}
WRITERS = ("duckdb", "pyarrow")


def write(file, writer, ids):
    """Every identifier five times, so that writers keep a dictionary; statistics hold all of 0 to 198."""
    rows = len(ids)
    times = pa.array([NOON] * rows, pa.timestamp("us", tz="UTC"))
    table = pa.table({
        "Id": ids, "EventTime": ["2026-01-31T12:00:00Z"] * rows, "Visits": pa.array(range(rows), pa.int64()),
        "write_time": times, "api_invocation_time": times, "is_deleted": [False] * rows,
    })
    if writer == "pyarrow":
        pq.write_table(table, file, bloom_filter_options={"Id": {"ndv": 100, "fpp": 0.01}})
    else:
        con = duckdb.connect()
        con.execute("SET TimeZone='UTC'")
        con.execute(f"COPY (SELECT * FROM \"table\") TO '{file}' (FORMAT parquet)")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("warehouse")
    groups = folder / "feature-groups"
    groups.mkdir()
    for kind, (feature, arrow, make, _) in KINDS.items():
        for writer in WRITERS:
            name = f"{kind}_{writer}"
            group = description(name, "Id", "EventTime", {"Id": feature, "EventTime": "String", "Visits": "Integral"})
            (groups / f"{name}.json").write_text(json.dumps(group))
            root = group["OfflineStoreConfig"]["S3StorageConfig"]["ResolvedOutputS3Uri"].removeprefix("s3://offline/")
            hour = folder / "s3" / root / "year=2026/month=01/day=31/hour=12"
            hour.mkdir(parents=True)
            write(hour / "a.parquet", writer, pa.array([make(n) for n in range(0, 200, 2)] * 5, arrow))
    with serving("--warehouse", str(folder)) as running:
        yield running


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("kind", KINDS)
def test_only_absent_records_are_ruled_out(server, kind, writer):
    _, _, make, literal = KINDS[kind]
    pruned = 0
    with server.connect() as connection, connection.cursor() as cursor:
        for number in range(0, 40):
            query = f'SELECT "Visits" FROM features.{kind}_{writer} WHERE "Id" = {literal(make(number))}'
            cursor.execute(query)
            # The last of the five rows wins.
            assert cursor.fetchall() == ([] if number % 2 else [(400 + number // 2,)])
            if number % 2:
                cursor.execute(f"EXPLAIN ANALYZE {query}")
                plan = str(cursor.fetchall())
                pruned += int(re.search(r"row_groups_pruned_by_bloom_filter=(\d+)", plan).group(1))
    assert pruned > 15, "of 20 absent records"
