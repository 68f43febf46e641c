"""The HTTP port: metrics that say what was done, read with Prometheus' own parser; health."""

import datetime as dt
import http.client
import re
import signal
import time

import adbc_driver_manager
import pyarrow as pa
import pytest
from conftest import Server
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from sagemaker_layout import description, write_warehouse

SCORES = description(
    "scores", "id", "at", {"id": "String", "at": "String", "score": "Fractional"},
    OnlineStoreConfig={"EnableOnlineStore": True})
NOON = dt.datetime(2026, 2, 1, 12, tzinfo=dt.timezone.utc)


def rows(count, first=0):
    return pa.table({
        "id": pa.array([f"secret-{i}" for i in range(first, first + count)], pa.string()),
        "at": pa.array([NOON + dt.timedelta(seconds=i) for i in range(count)], pa.timestamp("us", "UTC")),
        "score": pa.array([float(i) for i in range(count)], pa.float64()),
    })


def get(server, path):
    connection = http.client.HTTPConnection(server.http, timeout=30)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read().decode(), answer.headers["content-type"]


def scrape(server):
    """Every sample by its name and labels."""
    status, text, content_type = get(server, "/metrics")
    assert status == 200 and content_type.startswith("application/openmetrics-text")
    samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name.removeprefix("featureflight_"), *sorted(sample.labels.items()))
            assert key not in samples, key
            samples[key] = sample.value
    return text, samples


class Figures:
    """What the counts rose by since it was made."""

    def __init__(self, server):
        self.server = server
        self.before = scrape(server)[1]

    def of(self, name, **labels):
        key = (name, *sorted(labels.items()))
        return scrape(self.server)[1].get(key, 0) - self.before.get(key, 0)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("metrics") / "warehouse"
    write_warehouse(folder, SCORES, rows(0).set_column(1, "at", pa.array([], pa.string())))
    (folder / "s3").mkdir()
    running = Server("--warehouse", str(folder), "--own", "--http-listen", "127.0.0.1:0")
    running.http = re.search(r"metrics and health on http://(\S+)", "".join(running.log)).group(1)
    yield running
    if running.process.poll() is None:
        running.stop()


def test_queries_are_counted(server):
    with server.connect() as connection, connection.cursor() as cursor:
        figures = Figures(server)
        for _ in range(3):
            cursor.execute("SELECT n.value FROM (VALUES (1), (2)) AS n(value)")
            assert cursor.fetchall() == [(1,), (2,)]
        for wrong in ("SELECT * FROM nowhere", "SELECT 1 / n.value FROM (VALUES (0)) AS n(value)"):
            with pytest.raises(adbc_driver_manager.Error):
                cursor.execute(wrong)
                cursor.fetchall()
    assert figures.of("statements_total", kind="query", outcome="succeeded") == 3
    assert figures.of("statements_total", kind="query", outcome="failed") == 1
    assert figures.of("statement_duration_seconds_count", kind="query") == 4
    assert figures.of("result_rows_total") == 6
    assert figures.of("result_bytes_total") >= 6 * 8
    assert figures.of("calls_total", rpc="DoGet", code="OK") == 3
    assert figures.of("calls_total", rpc="DoGet", code="INVALID_ARGUMENT") == 1
    assert figures.of("calls_total", rpc="DoAction", code="NOT_FOUND") == 1


def test_writes_are_counted(server):
    figures = Figures(server)
    once = {"adbc.flight.sql.rpc.call_header.featureflight-idempotency-key": "once"}
    for _ in range(2):
        with server.connect(db_kwargs=once) as connection, connection.cursor() as cursor:
            cursor.adbc_ingest("scores", rows(10, 5000), mode="append")
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("scores", rows(1000), mode="append")
        cursor.execute("INSERT INTO scores VALUES ('a', '2026-02-01T00:00:00Z', 1.5)")
        bad = rows(3).set_column(2, "score", pa.array([1.0, float("nan"), float("inf")]))
        with pytest.raises(adbc_driver_manager.Error):
            cursor.adbc_ingest("scores", bad, mode="append")
        cursor.execute("SET featureflight.on_error = 'skip'")
        cursor.adbc_ingest("scores", bad.set_column(0, "id", pa.array(["x", "y", "z"])), mode="append")
    accepted = 1000 + 1 + 10 + 1
    assert figures.of("write_rows_acknowledged_total") == accepted
    assert figures.of("writes_acknowledged_total") == 4
    assert figures.of("writes_repeated_total") == 1
    assert figures.of("write_rows_refused_total") == 4
    assert figures.of("outbox_acknowledge_duration_seconds_count") == 4
    assert figures.of("outbox_fsync_duration_seconds_count") >= 4
    assert figures.of("statements_total", kind="write", outcome="succeeded") == 5
    assert figures.of("statements_total", kind="write", outcome="failed") == 1
    assert figures.of("statements_total", kind="command", outcome="succeeded") == 1
    deadline = time.monotonic() + 30
    while (sent := figures.of("store_records_sent_total", store="embedded")) < accepted:
        assert time.monotonic() < deadline, sent
        time.sleep(0.1)
    assert sent == accepted
    text, samples = scrape(server)
    assert samples["outbox_waiting_rows", ("stage", "online")] == 0
    assert samples["outbox_oldest_waiting_seconds", ("stage", "online")] == 0
    assert samples["outbox_waiting_rows", ("stage", "offline")] >= accepted
    assert 0 < samples["outbox_oldest_waiting_seconds", ("stage", "offline")] < 600
    assert samples["outbox_bytes",] > 0
    assert samples["outbox_unsynced_seconds",] == 0
    assert samples["catalog_feature_groups",] == 1
    assert 0 <= samples["catalog_age_seconds",] < 600
    assert samples["memory_process_bytes",] > 1 << 20
    assert "secret-" not in text and "scores" not in text


def digits(cursor):
    """A result of 100 million rows, of which the first are read."""
    ten = "(VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)) AS {}(v)"
    cursor.execute("SELECT a.v FROM " + ", ".join(ten.format(name) for name in "abcdefgh"))
    reader = cursor.fetch_record_batch()
    assert reader.read_next_batch().num_rows > 0
    return reader


def test_a_running_query_shows_until_it_is_given_up(server):
    """One whose reader took its first rows and no more."""
    figures = Figures(server)
    with server.connect() as connection, connection.cursor() as cursor:
        reader = digits(cursor)
        samples = scrape(server)[1]
        assert samples["queries_running",] == 1
        assert samples["calls_under_way",] >= 1
        assert samples["tasks", ("of", "queries")] >= 1 and samples["tasks", ("of", "server")] >= 1
        assert samples["connections",] >= 1 and samples["sessions",] >= 1
        reader.close()
    deadline = time.monotonic() + 30
    while figures.of("statements_total", kind="query", outcome="cancelled") == 0:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert scrape(server)[1]["queries_running",] == 0
    assert figures.of("calls_total", rpc="DoGet", code="CANCELLED") == 1
    assert 0 < figures.of("result_rows_total") < 10**8


def test_health_until_the_end(server):
    """A server that drains says so, and where it listens it does not end before it has."""
    assert get(server, "/healthz")[:2] == (200, "alive\n")
    assert get(server, "/readyz")[:2] == (200, "ready\n")
    with server.connect() as connection, connection.cursor() as cursor:
        reader = digits(cursor)
        server.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 5
        while (ready := get(server, "/readyz"))[0] == 200:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert ready[:2] == (503, "stopping: nothing new is begun\n")
        assert get(server, "/healthz")[0] == 200
        reader.close()
    assert server.process.wait(30) == 0
