"""`OPTIMIZE TABLE` from Python, and what DuckDB, which knows nothing of this server, reads of the files meanwhile and afterwards."""

import time

from test_writes import FLUSHED, ingest, make, owning, settle, table, uploaded, visits
from test_writes import files as versions

UPLOADS = 6
COLUMNS, ORDER = "id, \"at\", n, half, words, write_time, is_deleted", "id, write_time"


def files(folder, pattern):
    return sorted(path.name for path in (folder / "s3").rglob(pattern))


def wait(condition, what):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_files_are_joined_and_duckdb_reads_the_same(tmp_path):
    group = visits("visits")
    folder = make(tmp_path / "warehouse", group)
    rows = uploaded(2_400)
    with owning(folder, {**FLUSHED, "FEATUREFLIGHT__OFFLINE__GRACE": "10s"}) as server:
        for turn in range(UPLOADS):
            ingest(server, "visits", rows.slice(0, 2_400 - turn * 100))
            # A file for each of the day's hours.
            settle(server, "visits")
            assert len(files(folder, "*.parquet")) >= 20 * (turn + 1)
        settle(server, "visits")
        state = "SELECT id, n FROM visits ORDER BY id"
        expected, before = table(server, state), versions(folder, group, COLUMNS, ORDER)
        assert before.num_rows == sum(2_400 - turn * 100 for turn in range(UPLOADS))
        joined = table(server, "OPTIMIZE TABLE visits").to_pylist()
        assert all(hour["files_before"] > hour["files_after"] == 1 for hour in joined), joined
        # The last hour has the one file of the first upload.
        assert len(joined) == 23 and sum(hour["rows"] for hour in joined) == before.num_rows - 100
        assert sum(hour["bytes_after"] for hour in joined) < sum(hour["bytes_before"] for hour in joined)
        # The old files are kept, where DuckDB does not look.
        assert files(folder, ".*.parquet.replaced")
        assert versions(folder, group, COLUMNS, ORDER).equals(before)
        assert table(server, state).equals(expected)
        wait(lambda: not files(folder, ".*.parquet.replaced"), "replaced files stay")
        assert len(files(folder, "*.parquet")) == 24
        assert versions(folder, group, COLUMNS, ORDER).equals(before)
        assert table(server, state).equals(expected)
