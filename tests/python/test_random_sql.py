"""Random statements, answered by the server over the wire and by DuckDB over the same rows.

More of them by hand: FEATUREFLIGHT_RANDOM_SQL=20000 FEATUREFLIGHT_RANDOM_SQL_SEED=1 tests/run -k random_sql
"""

import collections
import datetime
import os
import random

import adbc_driver_manager
import duckdb
import pyarrow as pa
import pytest
from conftest import serving
from random_sql import Statements
from sagemaker_layout import description, write_warehouse

COUNT = int(os.environ.get("FEATUREFLIGHT_RANDOM_SQL", "300"))
SEED = int(os.environ.get("FEATUREFLIGHT_RANDOM_SQL_SEED", "0"))
# What DataFusion answers wrongly, and what it has no plan for: subqueries outside of WHERE, some windows,
# two aggregates that differ in a cast, or are each in an order of their own, orders that its rules lose sight of.
REFUSED = (
    "IN (SELECT ...) of values that may be null", "Physical plan does not support logical expression Exists",
    "Aggregate can not be used as a sliding accumulator", "appears twice", "Conflicting ordering requirements in aggregate",
    "does not satisfy order requirements")
UTC = datetime.timezone.utc
HOURS = [datetime.datetime(2026, 1, 1, tzinfo=UTC) + datetime.timedelta(hours=12 * step) for step in range(9)]
GROUP = description("prices", "sku", "seen", {"sku": "String", "seen": "String", "n": "Integral", "price": "Fractional"})
SCHEMAS = {
    "numbers": pa.schema([
        ("id", pa.int64()), ("n", pa.int64()), ("x", pa.float64()), ("s", pa.string()), ("b", pa.bool_()),
        ("seen", pa.timestamp("us", "UTC"))]),
    "pairs": pa.schema([("id", pa.int64()), ("n", pa.int64()), ("s", pa.string()), ("x", pa.float64())]),
    "spine": pa.schema([("sku", pa.string()), ("ts", pa.timestamp("us", "UTC")), ("label", pa.int64())]),
}


def table(draw, schema, rows):
    """Few values and many nulls, so that they meet."""
    values = {
        pa.int64(): [None, 0, 1, 2, 3, -1],
        pa.float64(): [None, 0.5, 1.0, 1.5, -3.5],
        pa.string(): [None, "", "a", "b", "ab", "Ba", " a"],
        pa.bool_(): [None, True, False],
        pa.timestamp("us", "UTC"): [None, *HOURS],
    }
    columns = {
        field.name: list(range(rows)) if field.name == "id" else [draw.choice(values[field.type]) for _ in range(rows)]
        for field in schema}
    return pa.table(columns, schema)


def versions(draw, rows):
    """Versions of prices, each at an instant of its own, some of them tombstones."""
    keys = [(sku, at) for sku in ("a", "b", "ab", "") for at in HOURS]
    keys = sorted(draw.sample(keys, rows), key=lambda key: key[1])
    return pa.table({
        "sku": [sku for sku, _ in keys],
        "seen": [at.strftime("%Y-%m-%dT%H:%M:%SZ") for _, at in keys],
        "n": pa.array([draw.choice([None, 0, 1, 2]) for _ in keys], pa.int64()),
        "price": pa.array([draw.choice([None, 0.5, 1.5]) for _ in keys], pa.float64()),
        "is_deleted": [draw.random() < 0.2 for _ in keys]})


STATE = """
    SELECT sku, seen, n, price FROM (
        SELECT *, row_number() OVER (PARTITION BY sku ORDER BY seen DESC) newest FROM history.prices WHERE {}
    ) WHERE newest = 1 AND NOT is_deleted
"""


def oracle(tables, history):
    """The same tables in DuckDB, where what we do in one word is written out. Its optimizer is off: that of
    version 2.0 takes `CASE WHEN s = '' THEN NULL ELSE '' END IN ('', 'a')` to be true."""
    database = duckdb.connect()
    database.execute("SET TimeZone = 'UTC'; SET threads = 1; SET order_by_non_integer_literal = true; PRAGMA disable_optimizer; CREATE SCHEMA history")
    for name, rows in tables.items():
        database.register("uploaded", rows)
        database.execute(f"CREATE TABLE {name} AS SELECT * FROM uploaded")
        database.unregister("uploaded")
    database.register("uploaded", history)
    database.execute("CREATE TABLE history.prices AS SELECT * REPLACE (CAST(seen AS TIMESTAMPTZ) AS seen) FROM uploaded")
    database.execute(f"CREATE VIEW prices AS {STATE.format('true')}")
    database.execute(f"CREATE MACRO prices_at(moment) AS TABLE {STATE.format('seen <= moment')}")
    # The newest version at the time of the spine's row, and nothing where it is a tombstone.
    picked = ", ".join(
        f"(SELECT CASE WHEN NOT is_deleted THEN {name} END FROM history.prices p"
        f" WHERE p.sku = s.sku AND p.seen <= s.ts ORDER BY p.seen DESC LIMIT 1) {name}" for name in ("price", "n"))
    database.execute(f"CREATE VIEW joined AS SELECT sku, ts, label, {picked} FROM spine s")
    return database


def comparable(rows):
    """A multiset of rows: instants in UTC, numbers as numbers."""
    def value(of):
        if isinstance(of, datetime.datetime):
            return of.replace(tzinfo=UTC) if of.tzinfo is None else of.astimezone(UTC)
        return of
    return collections.Counter(tuple(value(column) for column in row) for row in rows)


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    draw = random.Random(SEED)
    folder = tmp_path_factory.mktemp("warehouse")
    history = versions(draw, 24)
    write_warehouse(folder, GROUP, history)
    tables = {name: table(draw, schema, 16) for name, schema in SCHEMAS.items()}
    with serving("--warehouse", str(folder)) as server, server.connect() as connection, connection.cursor() as cursor:
        for name, rows in tables.items():
            cursor.adbc_ingest(name, rows, mode="create", temporary=True)
        cursor.execute("CREATE TEMP VIEW joined AS SELECT * FROM point_in_time_join(TABLE(spine), 'prices:price', 'prices:n')")
        cursor.fetchall()
        yield cursor, oracle(tables, history)


def test_random_statements_have_the_answers_of_duckdb(engines):
    ours, duck = engines
    wrong, refused = [], collections.Counter()
    for seed in range(SEED, SEED + COUNT):
        expected = duck.execute(Statements(random.Random(seed), ours=False).statement()).fetchall()
        sql = Statements(random.Random(seed), ours=True).statement()
        try:
            ours.execute(sql)
            rows = ours.fetchall()
        except adbc_driver_manager.Error as error:
            reason = next((known for known in REFUSED if known in str(error)), None)
            if reason is None:
                wrong.append(f"seed {seed}: {sql}\n{error}")
            refused[reason] += 1
            continue
        if comparable(rows) != comparable(expected):
            wrong.append(f"seed {seed}: {sql}\nours:   {sorted(map(str, rows))}\nduckdb: {sorted(map(str, expected))}")
    assert not wrong, f"{len(wrong)} statements, of them:\n" + "\n\n".join(wrong[:5])
    assert sum(refused.values()) < COUNT / 10, refused
