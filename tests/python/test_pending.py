"""Writing to a group of SageMaker from Python, end to end: rows are read at once, before the service has written them, and once each
while it does; by files that pyarrow writes, against stand-ins over HTTP.
"""

import datetime as dt
import json
import re

import pyarrow as pa
import pytest
from cloud import Cloud, eventually, steer
from conftest import serving
from sagemaker_layout import description

FEATURES = {"id": "String", "at": "String", "n": "Integral", "half": "Fractional"}
DAY = dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)
PENDING = "SELECT count(*), count(write_time) FROM history.visits"


class Service(Cloud):
    """The cloud with a group `visits`; its offline store is written when the test says so."""

    def __init__(self):
        super().__init__()
        self.landed, self.files = 0, 0
        self.group = description("visits", "id", "at", FEATURES, OnlineStoreConfig={"EnableOnlineStore": True})
        self.add(self.group, rows_of([{"id": "old", "at": "2025-12-31T00:00:00Z", "n": "-1", "half": "0.5"}]))

    def put_object(self, key, body):
        """A file of its own for every landing, as the service names them."""
        self.files += 1
        super().put_object(re.sub(r"_\d{16}\.", f"_{self.files:016d}.", key), body)

    def log(self):
        return json.loads(steer(self.sagemaker.runtime, "offline"))

    def faults(self, **faults):
        steer(self.sagemaker.runtime, "faults", faults)

    def land(self, count):
        """The service writes the next `count` rows of its log."""
        some = self.log()[self.landed:self.landed + count]
        self.landed += len(some)
        rows = rows_of([row["values"] for row in some])
        now = dt.datetime.now(dt.timezone.utc)
        stamp = pa.timestamp("ms", "UTC")
        called = pa.array([row["invoked_at"] // 1000 for row in some], pa.int64()).cast(stamp)
        rows = rows.append_column("write_time", pa.array([now] * len(some), stamp)).append_column("api_invocation_time", called)
        self.put(self.group, rows.append_column("is_deleted", pa.array([row["is_deleted"] for row in some])))


def rows_of(values):
    kinds = {"String": (pa.string(), str), "Integral": (pa.int64(), int), "Fractional": (pa.float64(), float)}

    def column(name):
        arrow, parse = kinds[FEATURES[name]]
        return pa.array([parse(row[name]) if name in row else None for row in values], arrow)
    return pa.table({name: column(name) for name in FEATURES})


@pytest.fixture()
def service():
    service = Service()
    yield service
    service.stop()


def sent(server):
    """Returns when the runtime has been told of everything."""
    eventually(lambda: expect(server, "SELECT waiting_online FROM system.writes WHERE waiting_online > 0", []))


def expect(server, sql, rows):
    found = server.rows(sql)
    assert found == rows, sql


def run(server, *statements):
    with server.connect() as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return cursor.rowcount


def ingest(server, rows):
    with server.connect() as connection, connection.cursor() as cursor:
        return cursor.adbc_ingest("visits", rows, mode="append")


def visits(count):
    numbers = range(count)
    return pa.table({"id": [f"r-{n}" for n in numbers], "at": [DAY + dt.timedelta(minutes=n) for n in numbers], "n": list(numbers),
                     "half": [n / 2 if n % 10 else None for n in numbers]})


def test_pending_rows_are_read_once_until_and_after_the_service_has_written_them(service, tmp_path):
    environment = {**service.environment, "FEATUREFLIGHT__OUTBOX__DIRECTORY": str(tmp_path / "outbox")}
    state = "SELECT count(*), sum(n) FROM visits"
    with serving("--aws", env=environment) as server:
        expect(server, PENDING, [(1, 1)])
        service.faults(away=True)
        assert ingest(server, visits(1000)) == 1000
        assert run(server, "INSERT INTO visits VALUES ('one', '2026-01-05T00:00:00Z', 7, NULL)") == 1
        assert run(server, "DELETE FROM visits WHERE id = 'r-3' AND at = '2026-02-01'") == 1
        expect(server, PENDING, [(1003, 1)])
        expect(server, state, [(1001, -1 + sum(range(1000)) + 7 - 3)])
        expect(server, "SELECT id, n, half FROM visits WHERE id IN ('one', 'old', 'r-3', 'r-11') ORDER BY 1",
               [("old", -1, 0.5), ("one", 7, None), ("r-11", 11, 5.5)])
        expect(server, "SELECT count(*) FROM history.visits FOR SYSTEM_TIME AS OF '9999-12-31'", [(1,)])
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SET featureflight.fresh = false")
            cursor.execute(PENDING)
            assert cursor.fetchall() == [(1, 1)], "as Athena sees it"
        assert service.log() == [], "the runtime was away"
        server.process.kill()
        server.process.wait()

    with serving("--aws", env=environment) as server:
        expect(server, PENDING, [(1003, 1)])
        service.faults()
        sent(server)
        for landed in (1, 400, 402):
            service.land(landed)
            expect(server, PENDING, [(1003, 1 + service.landed)])
            expect(server, state, [(1001, -1 + sum(range(1000)) + 7 - 3)])
            expect(server, "SELECT id, count(*) FROM history.visits GROUP BY id HAVING count(*) > 1", [("r-3", 2)])
        server.process.kill()
        server.process.wait()

    with serving("--aws", env=environment) as server:
        expect(server, PENDING, [(1003, 804)])
        service.land(1000)
        expect(server, PENDING, [(1003, 1003)])
        eventually(lambda: expect(server, "SELECT waiting_offline FROM system.writes WHERE waiting_offline > 0", []), 60)
        expect(server, PENDING, [(1003, 1003)])
        expect(server, state, [(1001, -1 + sum(range(1000)) + 7 - 3)])
        expect(server, "SELECT n FROM visits FOR VALID_TIME AS OF '2026-01-15' WHERE id = 'r-3'", [(3,)])
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.adbc_ingest("spine", pa.table({"id": ["r-5", "r-3", "nobody", "one"]}), mode="create", temporary=True)
            cursor.execute("SELECT id, n FROM online('visits') WHERE id IN (SELECT id FROM spine) ORDER BY 1")
            assert cursor.fetchall() == [("one", 7), ("r-5", 5)]
            cursor.execute("SELECT s.id, o.n FROM spine s LEFT JOIN online('visits') o ON o.id = s.id ORDER BY 1")
            assert cursor.fetchall() == [("nobody", None), ("one", 7), ("r-3", None), ("r-5", 5)]


def test_a_refused_record_is_in_quarantine_and_pending_again_once_it_is_sent_again(service, tmp_path):
    environment = {**service.environment, "FEATUREFLIGHT__OUTBOX__DIRECTORY": str(tmp_path / "outbox")}
    with serving("--aws", env=environment) as server:
        service.faults(poison=["r-2"])
        assert ingest(server, visits(5)) == 5
        sent(server)
        quarantined = "SELECT feature_group, record_identifier, operation, reason FROM system.quarantine"
        (group, identifier, operation, reason), = server.rows(quarantined)
        assert (group, identifier, operation) == ("visits", "r-2", "put") and "ValidationError" in reason
        expect(server, "SELECT id FROM history.visits WHERE write_time IS NULL ORDER BY 1", [(f"r-{n}",) for n in (0, 1, 3, 4)])
        number, = server.rows("SELECT id FROM system.quarantine")[0]
        service.faults()
        run(server, f"CALL redrive({number})")
        sent(server)
        expect(server, quarantined, [])
        expect(server, PENDING, [(6, 1)])
        service.land(5)
        expect(server, PENDING, [(6, 6)])
        assert [row["values"]["id"] for row in service.log()] == ["r-0", "r-1", "r-3", "r-4", "r-2"]
