"""ADBC and pyarrow against the parts of the protocol that drivers reach by options, not by SQL:
uploads, session options, headers, cancelling, keep-alives, the end of a server.
"""

import datetime
import decimal
import json
import signal
import threading
import time

import adbc_driver_flightsql
import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import grpc
import pandas
import polars
import pyarrow as pa
import pyarrow.flight as flight
import pytest
from conftest import serving
from sagemaker_layout import description, write_warehouse

GROUP = description("prices", "sku", "at", {"sku": "String", "at": "String", "price": "Fractional"})
PRICES = pa.table({
    "sku": ["a", "a", "b"],
    "at": ["2026-01-01T00:00:00Z", "2026-01-03T00:00:00Z", "2026-01-02T00:00:00Z"],
    "price": [1.0, 3.0, 2.0]})
HEADER = adbc_driver_flightsql.DatabaseOptions.RPC_CALL_HEADER_PREFIX.value
SESSION = "adbc.flight.sql.session.option."
# Some seconds without a row.
COMPUTES = "SELECT count(*) FROM range(20000) a CROSS JOIN range(20000) b"


def utc(day, hour=0):
    return datetime.datetime(2026, 1, day, hour, tzinfo=datetime.timezone.utc)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("warehouse")
    write_warehouse(folder, GROUP, PRICES)
    with serving("--warehouse", str(folder), env={"FEATUREFLIGHT__SERVER__KEEP_ALIVE": "100ms"}) as running:
        yield running


def fetched(cursor, sql):
    cursor.execute(sql)
    return cursor.fetchall()


def test_rows_of_parameters_are_bound_in_turn(server):
    rows = pa.table({"1": ["b", "a", "c", "a"], "2": [utc(9), utc(2), utc(9), utc(9)]})
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT sku, price FROM prices FOR VALID_TIME AS OF $2 WHERE sku = $1", rows)
        assert cursor.fetchall() == [("b", 2.0), ("a", 1.0), ("a", 3.0)]
        batches = rows.to_reader(max_chunksize=1)
        cursor.execute("SELECT at, price FROM history.prices WHERE sku = $1 AND at < $2 ORDER BY price DESC", batches)
        assert [price for _, price in cursor.fetchall()] == [2.0, 1.0, 3.0, 1.0]


def test_an_uploaded_spine_is_joined_point_in_time(server):
    spine = pa.table({"sku": ["a", "a", "b", "c"], "ts": [utc(1), utc(2, 23), utc(1), utc(9)], "label": [0, 1, 0, 1]})
    with server.connect() as connection, connection.cursor() as cursor:
        reader = pa.RecordBatchReader.from_batches(spine.schema, spine.to_batches(max_chunksize=2))
        assert cursor.adbc_ingest("spine", reader, mode="create", temporary=True) == 4
        rows = fetched(
            cursor, "SELECT sku, label, price FROM point_in_time_join(TABLE(spine), 'prices:price') ORDER BY sku, label")
        assert rows == [("a", 0, 1.0), ("a", 1, 1.0), ("b", 0, None), ("c", 1, None)]
        with pytest.raises(adbc_driver_manager.Error):
            server.rows("SELECT * FROM spine")


def test_modes(server):
    one = pa.table({"n": [1]})
    with server.connect() as connection, connection.cursor() as cursor:
        def ingest(mode, data=one):
            return cursor.adbc_ingest("t", data, mode=mode, temporary=True)

        with pytest.raises(adbc_driver_manager.Error, match="(?i)no temporary table"):
            ingest("append")
        assert ingest("create") == 1
        with pytest.raises(adbc_driver_manager.Error, match="(?i)temporary table"):
            ingest("create")
        assert ingest("append") == 1 and ingest("create_append") == 1
        assert fetched(cursor, "SELECT count(*) FROM t") == [(3,)]
        assert ingest("replace", pa.table({"text": ["x", "y"]})) == 2
        assert fetched(cursor, "SELECT text FROM t ORDER BY text") == [("x",), ("y",)]
        with pytest.raises(adbc_driver_manager.Error, match="cannot be written"):
            cursor.adbc_ingest("prices", one, mode="append")
        with pytest.raises(adbc_driver_manager.Error, match="would hide"):
            cursor.adbc_ingest("prices", one, mode="create", temporary=True)


def test_every_type_a_spine_may_have_comes_back(server):
    moment = utc(2, 3)
    table = pa.table({
        "text": pa.array(["ä", None]), "large": pa.array(["x" * 100, None], pa.large_string()),
        "view": pa.array(["y" * 100, None], pa.string_view()),
        **{str(kind): pa.array([1, None], kind) for kind in (
            pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64(),
            pa.float32(), pa.float64())},
        "bool": pa.array([True, None]), "binary": pa.array([b"\0\1", None]),
        "date": pa.array([moment.date(), None]), "naive": pa.array([moment.replace(tzinfo=None), None]),
        **{f"ts_{unit}": pa.array([moment, None], pa.timestamp(unit, "UTC")) for unit in ("s", "ms", "us", "ns")},
        "zoned": pa.array([moment, None], pa.timestamp("us", "America/New_York")),
        "decimal": pa.array([decimal.Decimal("1.50"), None], pa.decimal128(10, 2)),
        "list": pa.array([[1, 2], None]), "struct": pa.array([{"a": 1}, None]),
    })
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("kinds", table, mode="create", temporary=True)
        cursor.execute("SELECT * FROM kinds")
        back = cursor.fetch_arrow_table()
    assert back.column_names == table.column_names
    for name in table.column_names:
        sent, got = table[name].to_pylist(), back[name].to_pylist()
        if name == "naive":
            sent = [moment, None]
        assert got == sent, name


def test_an_instant_is_the_same_in_every_zone(server):
    moment = utc(4, 18)
    table = pa.table({
        "naive": pa.array([moment.replace(tzinfo=None)], pa.timestamp("us")),
        "york": pa.array([moment], pa.timestamp("us", "America/New_York")),
        "kolkata": pa.array([moment], pa.timestamp("ns", "+05:30")),
    })
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("zones", table, mode="create", temporary=True)
        literal = f"TIMESTAMP '{moment.isoformat()}'"
        for column in table.column_names:
            assert fetched(cursor, f"SELECT {column}, {column} = naive, {column} = {literal}, extract(hour FROM {column}), "
                           f"CAST(date_trunc('day', {column}) AS DATE) FROM zones") == [
                               (moment, True, True, 18, moment.date())], column
        assert fetched(cursor, "SELECT naive FROM zones UNION SELECT york FROM zones") == [(moment,)]
        for column in table.column_names:
            cursor.execute(f"SELECT $1 = {literal} AND extract(hour FROM $1) = 18", table.select([column]))
            assert cursor.fetchall() == [(True,)], column


def test_an_upload_whose_source_fails_leaves_nothing(server):
    """The driver cancels the call: what came until then must not look like all there is."""
    schema = pa.schema([("n", pa.int64())])

    def numbers():
        for n in range(100):
            if n == 50:
                raise RuntimeError("the source failed")
            yield pa.RecordBatch.from_pylist([{"n": n}], schema=schema)
    for _ in range(5):
        with server.connect() as connection, connection.cursor() as cursor:
            with pytest.raises(Exception, match="source failed"):
                cursor.adbc_ingest("partial", pa.RecordBatchReader.from_batches(schema, numbers()),
                                   mode="create", temporary=True)
            time.sleep(0.3)
            with pytest.raises(adbc_driver_manager.Error, match="partial"):
                cursor.execute("SELECT count(*) FROM partial")


def test_what_cannot_be_read_is_the_clients_fault(server):
    """Bytes that are no message of gRPC's or Protobuf's, which no handler sees."""
    with grpc.insecure_channel(server.uri.removeprefix("grpc://")) as channel:
        def call(method, request):
            rpc = channel.unary_unary(f"/arrow.flight.protocol.FlightService/{method}", request_serializer=lambda b: b)
            with pytest.raises(grpc.RpcError) as error:
                rpc(request, timeout=30)
            return error.value.code()
        assert call("GetFlightInfo", b"\xff\xff") == grpc.StatusCode.INVALID_ARGUMENT
        assert call("GetSchema", b"\x08\x02\x1a\x01\xff") == grpc.StatusCode.INVALID_ARGUMENT, "a path that is no text"
        assert call("PollFlightInfo", b"\x12" + b"\xff" * 9) == grpc.StatusCode.INVALID_ARGUMENT
        assert call("GetFlightInfo", bytes(65 << 20)) == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert call("MakeCoffee", b"") == grpc.StatusCode.UNIMPLEMENTED


def test_frames_upload(server):
    with server.connect() as connection, connection.cursor() as cursor:
        frame = pandas.DataFrame({"sku": ["a"], "ts": [pandas.Timestamp(utc(2))]})
        cursor.adbc_ingest("pandas_spine", pa.Table.from_pandas(frame), mode="create", temporary=True)
        cursor.adbc_ingest("polars_spine", polars.DataFrame({"sku": ["a"], "ts": [utc(2)]}), mode="create", temporary=True)
        for name in ("pandas_spine", "polars_spine"):
            assert fetched(
                cursor, f"SELECT price FROM point_in_time_join(TABLE({name}), 'prices:price')") == [(1.0,)]


def test_a_million_rows_upload_in_one_batch_and_come_back(server):
    numbers = pa.table({"n": pa.array(range(1_000_000), pa.int64()), "x": pa.array([0.5] * 1_000_000)})
    with server.connect() as connection, connection.cursor() as cursor:
        assert cursor.adbc_ingest("numbers", numbers, mode="create", temporary=True) == 1_000_000
        assert fetched(cursor, "SELECT count(*), sum(n), sum(x) FROM numbers") == [(1_000_000, 499999500000, 500000.0)]


def test_clocks_by_header_and_by_session_option(server):
    price = "SELECT price FROM prices WHERE sku = 'a'"
    assert server.rows(price) == [(3.0,)]
    with server.connect(db_kwargs={HEADER + "featureflight-valid-time": "2026-01-02"}) as connection:
        with connection.cursor() as cursor:
            assert fetched(cursor, price) == [(1.0,)]
            with pytest.raises(adbc_driver_manager.Error, match="fixed by the header"):
                cursor.execute("SET featureflight.valid_time = '2026-01-04'")
    with server.connect() as connection, connection.cursor() as cursor:
        connection.adbc_connection.set_options(**{SESSION + "featureflight.valid_time": "2026-01-02"})
        assert fetched(cursor, price) == [(1.0,)]
        assert connection.adbc_connection.get_option(SESSION + "featureflight.valid_time") == "2026-01-02T00:00:00Z"
        with pytest.raises(adbc_driver_manager.Error):
            connection.adbc_connection.set_options(**{SESSION + "featureflight.valid_time": "soon"})
        assert fetched(cursor, price) == [(1.0,)]
    with pytest.raises(adbc_driver_manager.Error):
        with server.connect(db_kwargs={HEADER + "featureflight-valid-time": "soon"}) as connection:
            connection.cursor().execute("SELECT 1")


def test_the_default_schema_by_option(server):
    with server.connect() as connection, connection.cursor() as cursor:
        connection.adbc_connection.set_options(**{"adbc.connection.db_schema": "history"})
        assert fetched(cursor, "SELECT count(*) FROM prices") == [(3,)]
        assert connection.adbc_current_db_schema == "history"
        assert connection.adbc_current_catalog == "featureflight"


def test_adbc_and_pyarrow_take_keep_alives(server):
    expected = 400_000_000
    assert server.rows(COMPUTES) == [(expected,)]
    client = flight.connect(server.uri.replace("grpc://", "grpc+tcp://"))
    command = statement(COMPUTES)
    info = client.get_flight_info(flight.FlightDescriptor.for_command(command))
    reader = client.do_get(info.endpoints[0].ticket)
    batches, said = [], b""
    for chunk in reader:
        batches.append(chunk.data)
        said = chunk.app_metadata.to_pybytes() if chunk.app_metadata else said
    assert any(batch.num_rows == 0 for batch in batches), "it computed for longer than the interval"
    assert pa.Table.from_batches(batches).to_pydict()["count(*)"] == [expected]
    assert json.loads(said)["rows"] == 1
    about = json.loads(info.app_metadata)
    assert about["endpoints"] == 1 and about["query_id"] == json.loads(said)["query_id"]


def statement(sql):
    """`CommandStatementQuery` in an `Any`, for a client that has no Flight SQL."""
    def field(number, payload):
        size, head = len(payload), bytes([number << 3 | 2])
        while size > 127:
            head, size = head + bytes([size & 127 | 128]), size >> 7
        return head + bytes([size]) + payload

    url = b"type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery"
    return field(1, url) + field(2, field(1, sql.encode()))


def test_cancel_ends_the_work(server):
    endless = "SELECT count(*) FROM range(1000000) a CROSS JOIN range(1000001) b"
    with server.connect() as connection, connection.cursor() as cursor:
        outcome = []

        def run():
            try:
                cursor.execute(endless)
                cursor.fetchall()
            except adbc_driver_manager.Error as error:
                outcome.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        time.sleep(1)
        began = time.monotonic()
        cursor.adbc_cancel()
        thread.join(10)
        assert outcome and time.monotonic() - began < 2
    deadline = time.monotonic() + 2
    while running := server.rows("SELECT id FROM system.queries WHERE state = 'running' AND statement LIKE '%1000001%'"
                                 " AND statement NOT LIKE '%system.queries%'"):
        assert time.monotonic() < deadline, running


def test_a_deadline_ends_the_work(server):
    options = {adbc_driver_flightsql.ConnectionOptions.TIMEOUT_FETCH.value: "0.5"}
    with server.connect(conn_kwargs=options) as connection, connection.cursor() as cursor:
        began = time.monotonic()
        with pytest.raises(adbc_driver_manager.Error):
            fetched(cursor, "SELECT count(*) FROM range(1000000) a CROSS JOIN range(1000002) b")
        assert time.monotonic() - began < 2.5


def test_sigterm_lets_a_result_finish(tmp_path):
    write_warehouse(tmp_path, GROUP, PRICES)
    with serving("--warehouse", str(tmp_path), env={"FEATUREFLIGHT__SERVER__SHUTDOWN_GRACE": "60s"}) as server:
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM range(15000) a CROSS JOIN range(15000) b")
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            with pytest.raises(adbc_driver_manager.Error):
                server.rows("SELECT 1")
            assert cursor.fetchall() == [(225_000_000,)]
        assert server.process.wait(20) == 0


def test_a_long_query_holds_up_no_other_cursor_of_its_connection(server):
    with server.connect() as connection, connection.cursor() as slow, connection.cursor() as quick:
        found = []
        thread = threading.Thread(target=lambda: found.extend(fetched(slow, COMPUTES)))
        thread.start()
        time.sleep(0.2)
        for number in range(5):
            assert fetched(quick, f"SELECT {number}") == [(number,)]
        assert thread.is_alive(), "the long query was over before the others: nothing was shown"
        thread.join()
        assert found == [(400_000_000,)]


def test_no_transactions_are_offered(server):
    """So that DB-API drivers neither wait for a commit nor lose what was done without one."""
    with pytest.warns(Warning, match="(?i)autocommit"):
        connection = flightsql.connect(server.uri)
    with connection, connection.cursor() as cursor:
        cursor.execute("SET featureflight.valid_time = '2026-01-02'")
        assert fetched(cursor, "SELECT price FROM prices WHERE sku = 'a'") == [(1.0,)]
        with pytest.raises(adbc_driver_manager.Error):
            connection.adbc_connection.set_autocommit(False)
