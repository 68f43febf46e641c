"""Writing from Python, end to end: uploads, INSERT and DELETE into a warehouse the server owns, read back at once, after a crash or a
restart, and from the Parquet files with DuckDB, which knows nothing of this server.

FEATUREFLIGHT_WRITE_RESULT names a file for the figures of the upload.
"""

import datetime as dt
import json
import os
import time

import adbc_driver_manager
import duckdb
import pyarrow as pa
import pytest
from conftest import serving
from sagemaker_layout import description

ROWS = 1_000_000
DAY = dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)
FEATURES = {"id": "String", "at": "String", "n": "Integral", "half": "Fractional", "words": "String"}
# Files only where a test wants them.
HELD = {"FEATUREFLIGHT__OFFLINE__MAX_AGE": "1h", "FEATUREFLIGHT__OFFLINE__MAX_SIZE": "4GiB"}
FLUSHED = {"FEATUREFLIGHT__OFFLINE__MAX_AGE": "1s"}


def make(folder, *groups):
    for part in ("feature-groups", "s3"):
        (folder / part).mkdir(parents=True)
    for group in groups:
        (folder / "feature-groups" / f"{group['FeatureGroupName']}.json").write_text(json.dumps(group))
    return folder


def visits(name, **more):
    return description(name, "id", "at", FEATURES, **more)


def online(name):
    return visits(name, OnlineStoreConfig={"EnableOnlineStore": True})


def owning(folder, env):
    return serving("--warehouse", str(folder), "--own", env=env)


def uploaded(count):
    """`count` records, an event of each within one day; every tenth lacks `half`."""
    numbers = range(count)
    begin, step = int(DAY.timestamp()) * 1000, 86_400_000 // count
    return pa.table({
        "id": [f"r-{n:07}" for n in numbers],
        "at": pa.array([begin + n * step for n in numbers], pa.timestamp("ms", "UTC")).cast(pa.timestamp("us", "UTC")),
        "n": pa.array(numbers, pa.int64()),
        "half": [n / 2 if n % 10 else None for n in numbers],
        "words": [f"ä{n % 7}" * (n % 5) for n in numbers]})


def ingest(server, group, rows, *settings, batch=50_000):
    with server.connect() as connection, connection.cursor() as cursor:
        for setting in settings:
            cursor.execute(setting)
        reader = pa.RecordBatchReader.from_batches(rows.schema, rows.to_batches(max_chunksize=batch))
        return cursor.adbc_ingest(group, reader, mode="append")


def table(server, sql):
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetch_arrow_table()


def written(server, sql, *settings):
    """How many rows `sql` wrote, as a DB-API user reads it."""
    with server.connect() as connection, connection.cursor() as cursor:
        for statement in (*settings, sql):
            cursor.execute(statement)
        return cursor.rowcount


def settle(server, group, column="waiting_offline"):
    """Returns when nothing of `group` waits."""
    deadline = time.monotonic() + 120
    while server.rows(f"SELECT {column} FROM system.writes WHERE feature_group = '{group}' AND {column} > 0"):
        assert time.monotonic() < deadline, server.rows("SELECT * FROM system.writes")
        time.sleep(0.1)


def files(folder, group, columns, order="id"):
    """What DuckDB reads of a group's files."""
    prefix = group["OfflineStoreConfig"]["S3StorageConfig"]["ResolvedOutputS3Uri"].split("/", 3)[3]
    return duckdb.sql(f"SELECT {columns} FROM read_parquet('{folder}/s3/{prefix}/**/*.parquet') ORDER BY {order}").to_arrow_table()


def test_an_upload_is_read_at_once_survives_a_crash_and_is_in_files_once(tmp_path):
    group = visits("visits")
    folder = make(tmp_path / "warehouse", group)
    rows = uploaded(ROWS)
    columns = ", ".join(FEATURES)
    figures = {"rows": ROWS}
    with owning(folder, HELD) as server:
        began = time.monotonic()
        assert ingest(server, "visits", rows) == ROWS
        figures["accepted in seconds"] = round(time.monotonic() - began, 1)
        began = time.monotonic()
        assert table(server, f"SELECT {columns} FROM visits ORDER BY id").cast(rows.schema).equals(rows)
        figures["read back in seconds"] = round(time.monotonic() - began, 1)
        assert table(server, "SELECT count(*) AS n FROM history.visits").to_pylist() == [{"n": ROWS}]
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SET featureflight.fresh = false")
            cursor.execute("SELECT count(*) FROM history.visits")
            assert cursor.fetchall() == [(0,)], "a file is there already: the crash below would prove nothing"
        server.process.kill()
        server.process.wait()
    with owning(folder, FLUSHED) as server:
        began = time.monotonic()
        settle(server, "visits")
        figures["in files after seconds"] = round(time.monotonic() - began, 1)
        columns_of_files = 'id, CAST("at" AS TIMESTAMPTZ) AS "at", n, half, words'
        assert files(folder, group, columns_of_files).cast(rows.schema).equals(rows), "a row is lost, changed, or there twice"
        assert files(folder, group, "count_if(is_deleted) AS n", "1").to_pylist() == [{"n": 0}]
        assert table(server, f"SELECT {columns} FROM visits ORDER BY id").cast(rows.schema).equals(rows)
        assert table(server, "SELECT count(*) AS n FROM history.visits").to_pylist() == [{"n": ROWS}]
    if result := os.environ.get("FEATUREFLIGHT_WRITE_RESULT"):
        with open(result, "w") as out:
            json.dump(figures, out)


def spoilt(rows, places):
    """`rows` with no identifier at `places`."""
    ids = [None if place in places else text for place, text in enumerate(rows["id"].to_pylist())]
    return rows.set_column(0, "id", pa.array(ids, pa.string()))


def test_refused_rows_are_reported_and_the_others_written_if_asked(tmp_path):
    folder = make(tmp_path / "warehouse", visits("visits"))
    rows = spoilt(uploaded(1000), {3, 500, 999})
    with owning(folder, HELD) as server:
        with pytest.raises(adbc_driver_manager.Error) as refused:
            ingest(server, "visits", rows, batch=100)
        message = str(refused.value)
        assert all(text in message for text in ("nothing was written to 'visits'", "row 3", "row 500", "row 999", "id")), message
        assert server.rows("SELECT count(*) FROM history.visits") == [(0,)]
        assert ingest(server, "visits", rows, "SET featureflight.on_error = 'skip'", batch=100) == 997
        assert server.rows("SELECT count(*), count(DISTINCT id) FROM history.visits") == [(997, 997)]
        assert server.rows("SELECT count(*) FROM visits WHERE n IN (3, 500, 999)") == [(0,)]
        spoiling = "INSERT INTO visits SELECT CASE WHEN n < 2 THEN NULL ELSE id END, at, n, half, words FROM visits WHERE n < 5 AND n <> 3"
        with pytest.raises(adbc_driver_manager.Error, match="2 rows refused(.|\n)*id"):
            written(server, spoiling)
        assert written(server, spoiling, "SET featureflight.on_error = 'skip'") == 2
        assert server.rows("SELECT id, count(*) FROM history.visits GROUP BY id HAVING count(*) > 1 ORDER BY 1") == [("r-0000002", 2), ("r-0000004", 2)]


def test_insert_and_delete_through_db_api_outlive_a_restart_and_reach_both_stores(tmp_path):
    source, target = online("source"), online("target")
    folder = make(tmp_path / "warehouse", source, target)
    doubled = "SELECT id, n FROM target ORDER BY id"
    with owning(folder, HELD) as server:
        assert written(server, "INSERT INTO source VALUES ('r-0000000', '2026-01-01T00:00:00Z', 0, NULL, 'literal')") == 1
        bound = [(f"r-{n:07}", DAY + dt.timedelta(minutes=n), n, n / 2, None) for n in range(1, 100)]
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.executemany("INSERT INTO source VALUES (?, ?, ?, ?, ?)", bound)
        assert server.rows("SELECT count(*), sum(n), count(words) FROM source") == [(100, 4950, 1)]
        assert written(server, "INSERT INTO target SELECT id, at, n * 2, half, words FROM source") == 100
        assert server.rows(doubled) == [(f"r-{n:07}", 2 * n) for n in range(100)]
        assert written(server, "DELETE FROM target WHERE id IN ('r-0000001', 'r-0000002')") == 2
        left = [(f"r-{n:07}", 2 * n) for n in range(100) if n not in (1, 2)]
        assert server.rows(doubled) == left
        assert server.stop() == 0
    with owning(folder, FLUSHED) as server:
        assert server.rows(doubled) == left
        assert written(server, "INSERT INTO target SELECT id, now(), -1, NULL, words FROM source WHERE n = 3") == 1
        left[1] = ("r-0000003", -1)
        assert server.rows(doubled) == left
        for group in ("source", "target"):
            settle(server, group)
            settle(server, group, "waiting_online")
        assert server.rows("SELECT feature_group, sent, quarantined FROM system.writes ORDER BY 1") == [("source", 0, 0), ("target", 1, 0)], "the rest was sent before the restart"
        assert server.rows("SELECT id, n FROM online('target') ORDER BY id") == left, "the online store has the newest of each"
        for group in ("source", "target"):
            skew = server.rows(f"SELECT class, count(*) FROM online_skew('{group}') GROUP BY class")
            assert skew == [("equal", 100 if group == "source" else 98)]
        records = "count(*) AS rows, count(DISTINCT id) AS records, count_if(is_deleted) AS tombstones"
        assert files(folder, source, records, "1").to_pylist() == [{"rows": 100, "records": 100, "tombstones": 0}]
        assert files(folder, target, records, "1").to_pylist() == [{"rows": 103, "records": 100, "tombstones": 2}]
        assert server.rows(doubled) == left
