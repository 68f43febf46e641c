"""The one list of checks every driver passes through. A check returns nothing when what it saw is right; it raises
AssertionError (or what the driver said) when not, `NotOffered` when the driver has no way to ask.
"""

import contextlib
import datetime as dt
import itertools
import json
import math
import threading
import time

import warehouse
from charts import CHARTS
from proxy import Proxy
from tool import NotOffered, Refused
from warehouse import MILLION, SPINE, TICK_SUMS, UTC

PRICE_OF_A = "SELECT price FROM prices WHERE sku = 'a'"
JOIN = "SELECT sku, label, price FROM point_in_time_join({}, 'prices:price') ORDER BY label"
VALUES = "SELECT * FROM (VALUES {}) v(sku, ts, label)".format(
    ", ".join(f"('{sku}', TIMESTAMP '{ts:%Y-%m-%d %H:%M:%S}', {label})" for sku, ts, label, _ in SPINE))
ENDLESS = "SELECT count(*) FROM range(1000000) a CROSS JOIN range({}) b"
LENGTHY = "SELECT count(*) FROM range(2000) a CROSS JOIN range({}) b"


class Bench:
    """A running server and the tool that talks to it."""

    def __init__(self, server, tool):
        self.server, self.tool = server, tool
        self.port = int(server.uri.rsplit(":", 1)[1])

    def connect(self, headers=None, user=None, port=None):
        self.tool.ask("connect", host="127.0.0.1", port=port or self.port, headers=headers or {}, user=user, password=user and "any")

    def query(self, sql, *parameters):
        found = self.tool.ask("query", sql=sql, parameters=list(parameters) or None)
        return found["columns"], found["rows"]

    def rows(self, sql, *parameters):
        return self.query(sql, *parameters)[1]

    def run(self, sql):
        self.tool.ask("run", sql=sql)

    def numbers(self, sql, *parameters):
        return [[cell if cell is None else float(cell) for cell in row] for row in self.rows(sql, *parameters)]

    def sees(self, sql, expected, *parameters):
        found = self.numbers(sql, *parameters)
        assert found == expected, f"{found} instead of {expected} for {sql}"


def connect(bench):
    bench.connect()
    bench.sees("SELECT 1", [[1.0]])
    bench.connect(user="ada")
    bench.sees("SELECT 2", [[2.0]])


def browse(bench):
    bench.connect()
    found = bench.tool.ask("browse")
    tables = {("features", "prices"), ("history", "prices"), ("sagemaker_featurestore", "prices_1700000000"), ("system", "queries")}
    expected = {
        "catalogs": {"featureflight"}, "schemas": {"features", "history", "sagemaker_featurestore", "system", "information_schema"},
        "tables": tables, "columns": {("features", "prices", name) for name in ("sku", "at", "price")}
        | {("history", "prices", "is_deleted")}, "keys": {("features", "prices", "sku")}}
    for what, names in expected.items():
        if found[what] is not None:
            seen = {tuple(n) if isinstance(n, list) else n for n in found[what]}
            assert names <= seen, f"{what} lack {sorted(names - seen)}"
    assert any(found[what] is not None for what in expected), "nothing to browse"


def same(got, wanted):
    if isinstance(wanted, float) and math.isnan(wanted):
        return isinstance(got, float) and math.isnan(got)
    if isinstance(wanted, dt.datetime) and isinstance(got, dt.datetime):
        return (got if got.tzinfo else got.replace(tzinfo=UTC)) == wanted
    if isinstance(wanted, float) and isinstance(got, float) and wanted == 0:
        return math.copysign(1, wanted) == math.copysign(1, got) and got == 0
    return got == wanted


def values(bench, read, literals, expected):
    """What is wrong with the way a column of `literals` and a null arrives, or None."""
    rows = ", ".join(f"({place}, {literal})" for place, literal in enumerate([*literals, "NULL"]))
    try:
        cells = [row[0] for row in bench.rows(f"SELECT v FROM (VALUES {rows}) t(i, v) ORDER BY i")]
    except Refused as error:
        return " ".join(str(error).split())[:80]
    if len(cells) != len(expected) + 1:
        return f"{len(cells)} rows instead of {len(expected) + 1}"
    for cell, wanted in zip(cells, [*expected, None]):
        try:
            got = cell if cell is None else read(cell)
        except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError):
            return f"reads as {cell[:40]}"
        if not same(got, wanted):
            return f"{got} instead of {wanted}"


def arrive(bench, cases):
    """All that do not are named."""
    bench.connect()
    wrong = {kind: trouble for kind, *case in cases if (trouble := values(bench, *case))}
    assert not wrong, "; ".join(f"{kind}: {trouble}" for kind, trouble in wrong.items())


def types(bench):
    arrive(bench, warehouse.SCALARS)


def rarer_types(bench):
    arrive(bench, warehouse.RARER)


def features(bench):
    bench.connect()
    found = bench.rows("SELECT id, whole, part, words, at FROM extremes ORDER BY id")
    assert len(found) == len(warehouse.EXTREME_ROWS), f"{len(found)} rows instead of {len(warehouse.EXTREME_ROWS)}"
    for cells, (record, whole, part, words) in zip(found, warehouse.EXTREME_ROWS):
        got = (cells[0], cells[1] and int(cells[1]), cells[2] and float(cells[2]), cells[3])
        assert got == (record, whole, part, words), f"{str(got)[:100]} for {record}"
        assert same(dt.datetime.fromisoformat(cells[4]), dt.datetime(2026, 1, 1, tzinfo=UTC)), cells[4]


def nested(bench):
    bench.connect()
    rows = bench.rows("SELECT [1, NULL, 3] AS list, named_struct('a', 1, 'b', 'x') AS struct, CAST(NULL AS BIGINT[]) AS nothing")
    assert len(rows) == 1, f"{len(rows)} rows instead of 1"
    cells = rows[0]
    assert cells[2] is None, f"a null list reads as {cells[2]}"
    got = [json.loads(cell) for cell in cells[:2]]
    assert got == [["1", None, "3"], {"a": "1", "b": "x"}], f"reads as {got}"


def parameters(bench):
    bench.connect()
    text, number = {"type": "text", "value": "a"}, {"type": "double", "value": "2.5"}
    bench.sees("SELECT price FROM history.prices WHERE sku = ? AND price > ?", [[3.0]], text, number)
    whole = {"type": "int", "value": str(2**63 - 1)}
    bench.sees("SELECT CASE id WHEN 'high' THEN 1 END FROM extremes WHERE whole = ?", [[1.0]], whole)
    for moment, price in (("2026-01-02T23:59:59.999+00:00", 1.0), ("2026-01-03T00:00:00+00:00", 3.0)):
        bound = {"type": "timestamp", "value": moment}
        bench.sees("SELECT price FROM prices FOR VALID_TIME AS OF ? WHERE sku = 'a'", [[price]], bound)
    bench.sees("SELECT count(*) FROM prices WHERE sku = ?", [[0.0]], {"type": "text", "value": None})


def decimals(bench):
    bench.connect()
    sql = "SELECT price FROM history.prices WHERE CAST(price AS DECIMAL(38, 10)) > ? AND sku = 'a'"
    bench.sees(sql, [[3.0]], {"type": "decimal", "value": "2.5"})
    bench.sees(sql, [], {"type": "decimal", "value": "3.0000000001"})
    most = "9" * 28 + "." + "9" * 10
    bench.sees(f"SELECT count(*) FROM (VALUES (CAST('{most}' AS DECIMAL(38, 10)))) t(v) WHERE v = ?", [[1.0]], {"type": "decimal", "value": most})


def rarer_parameters(bench):
    bench.connect()
    wrong = {}
    for kind, literal, value in (("boolean", "true", "true"), ("date", "DATE '1969-12-31'", "1969-12-31"), ("binary", "X'00ff10'", "00ff10")):
        try:
            bench.sees(f"SELECT count(*) FROM (VALUES ({literal})) t(v) WHERE v = ?", [[1.0]], {"type": kind, "value": value})
        except (Refused, AssertionError) as trouble:
            wrong[kind] = " ".join(str(trouble).split())[:80]
    assert not wrong, "; ".join(f"{kind}: {trouble}" for kind, trouble in wrong.items())


def drained(bench, sql):
    found = bench.tool.ask("drain", sql=sql, seconds=300)
    assert found["rows"] == MILLION, f"{found['rows']} rows instead of {MILLION}"
    for name, expected in TICK_SUMS.items():
        assert found["sums"][name] == expected, f"the sum of {name} is {found['sums'][name]} instead of {expected}"
    return found


def million(bench):
    bench.connect()
    drained(bench, "SELECT id, at, n, half FROM history.ticks")


def endpoints(bench):
    """The relay counts the streams that were asked for; a tool that has tasks says how many read."""
    with Proxy(bench.port) as proxy:
        bench.connect(headers={"featureflight-endpoints": "4"}, port=proxy.port)
        before = proxy.fetches
        tasks = drained(bench, "SELECT id, at, n, half FROM history.ticks").get("tasks", 4)
        assert proxy.fetches - before >= 4, f"{proxy.fetches - before} endpoints read instead of 4"
        assert tasks == 4, f"{tasks} tasks instead of 4"
    bench.connect(headers={"featureflight-endpoints": "4"})
    top = bench.numbers("SELECT n FROM history.ticks ORDER BY n DESC LIMIT 1000")
    assert len(top) == 1000, f"{len(top)} rows instead of the first 1000"
    assert top == [[float(MILLION - 1 - place)] for place in range(1000)], "an ordered result lost its order"


def empty(bench):
    bench.connect()
    columns, rows = bench.query("SELECT id, whole, part, at FROM extremes WHERE id = 'nobody'")
    assert rows == [], f"{len(rows)} rows instead of none"
    assert columns == ["id", "whole", "part", "at"], f"the columns are {columns}"


def refused(bench, sql, word):
    try:
        bench.rows(sql)
    except Refused as error:
        assert word in str(error).lower(), f"the message lacks '{word}': {error}"
        return
    raise AssertionError(f"no error for {sql}")


def error(bench):
    bench.connect()
    refused(bench, "SELECT nope FROM prices", "nope")
    refused(bench, "SELECT * FROM pricess", "prices")
    refused(bench, "SELEC 1", "selec")
    bench.sees("SELECT 1", [[1.0]])


def late_error(bench):
    """Several times, since a driver may lose the error in a race."""
    bench.connect()
    for _ in range(3):
        try:
            found = bench.tool.ask("drain", sql=f"SELECT n, 1 / (n - {MILLION - 1}) AS half FROM history.ticks")
        except Refused as error:
            assert "zero" in str(error).lower(), error
        else:
            raise AssertionError(f"a stream that failed is a result of {found['rows']} rows")
    bench.sees("SELECT 1", [[1.0]])


def marked():
    """A number no other statement has."""
    return 1_000_000 + time.time_ns() % 100_000


def runs(bench, marker):
    """Whether the server computes the statement with `marker`."""
    return bench.server.rows(
        f"SELECT id FROM system.queries WHERE state = 'running' AND lower(statement) LIKE '%range({marker})%' AND statement NOT LIKE '%system.queries%'")


@contextlib.contextmanager
def watched(bench, marker):
    """The moments at which the server was seen computing the statement with `marker`."""
    moments, over = [], threading.Event()

    def watch():
        while not over.wait(0.1):
            if runs(bench, marker):
                moments.append(time.monotonic())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield moments
    finally:
        over.set()
        watcher.join()


def cancel(bench):
    bench.connect()
    marker = marked()
    with watched(bench, marker) as moments:
        seconds = bench.tool.ask("cancel", sql=ENDLESS.format(marker), after=2.0)
    assert moments, "the statement was not running when it was cancelled"
    assert seconds < 2, f"the call ended {seconds:.1f} s after the cancel"
    deadline = time.monotonic() + 2
    while runs(bench, marker):
        assert time.monotonic() < deadline, "the server still computes two seconds later"
        time.sleep(0.1)
    bench.connect()
    bench.sees("SELECT 1", [[1.0]])


def reconnect(bench):
    """A cut connection loses the statement, never the clock: the answer is the clock's or an error, and soon an answer again. A
    tool without sessions has its clock by header."""
    for _ in range(3):
        bench.connect()
        bench.sees(PRICE_OF_A, [[3.0]])
    with Proxy(bench.port) as proxy:
        bench.connect(user="ada", port=proxy.port)
        try:
            bench.run("SET featureflight.valid_time = '2026-01-02'")
        except NotOffered:
            bench.connect(headers={"featureflight-valid-time": "2026-01-02"}, user="ada", port=proxy.port)
        bench.sees(PRICE_OF_A, [[1.0]])
        proxy.cut()
        answers, said = 0, None
        for _ in range(6):
            try:
                bench.sees(PRICE_OF_A, [[1.0]])
                answers += 1
            except Refused as error:
                said = error
                time.sleep(0.5)
        assert answers, f"no answer any more: {said}"
        bench.connect(user="ada", port=proxy.port)
        bench.sees(PRICE_OF_A, [[3.0]])


def by_sql(bench):
    bench.connect()
    bench.sees("SELECT price FROM prices FOR VALID_TIME AS OF '2026-01-02' WHERE sku = 'a'", [[1.0]])
    bench.sees("SELECT price FROM prices FOR SYSTEM_TIME AS OF '2026-01-03T00:30:00Z' WHERE sku = 'a'", [[1.0]])
    bench.sees("SELECT price FROM prices TIMESTAMP AS OF '2026-01-04' WHERE sku = 'a'", [[3.0]])
    bench.sees(PRICE_OF_A, [[3.0]])


def by_set(bench):
    bench.connect(user="ada")
    bench.run("SET featureflight.valid_time = '2026-01-02'")
    bench.sees(PRICE_OF_A, [[1.0]])
    bench.run("RESET featureflight.valid_time")
    bench.sees(PRICE_OF_A, [[3.0]])


def by_option(bench):
    bench.connect()
    bench.tool.ask("option", name="featureflight.valid_time", value="2026-01-02")
    bench.sees(PRICE_OF_A, [[1.0]])


def by_header(bench):
    bench.connect(headers={"featureflight-valid-time": "2026-01-02"})
    bench.sees(PRICE_OF_A, [[1.0]])
    bench.connect(headers={"featureflight-system-time": "2026-01-03T00:30:00Z"})
    bench.sees(PRICE_OF_A, [[1.0]])
    try:
        bench.connect(headers={"featureflight-valid-time": "soon"})
        found = bench.rows(PRICE_OF_A)
    except Refused:
        return
    raise AssertionError(f"a malformed clock was ignored: {found}")


def spine_matches(bench, spine):
    found = [(sku, int(label), price and float(price)) for sku, label, price in bench.rows(JOIN.format(spine))]
    expected = [(sku, label, price) for sku, _, label, price in SPINE]
    assert found == expected, f"{found} instead of {expected}"


def uploaded_spine(bench):
    bench.connect()
    columns = [["sku", "text"], ["ts", "timestamp"], ["label", "int"]]
    bench.tool.ask("upload", name="spine", columns=columns, rows=[[sku, ts.isoformat(), str(label)] for sku, ts, label, _ in SPINE])
    spine_matches(bench, "TABLE(spine)")


def view_spine(bench):
    bench.connect(user="ada")
    bench.run(f"CREATE TEMP VIEW spine_view AS {VALUES}")
    spine_matches(bench, "TABLE(spine_view)")


def statement_spine(bench):
    bench.connect()
    spine_matches(bench, f"({VALUES})")


def writes(bench):
    """By literals, by a batch of parameters where there are any, and a deletion; each says how many rows it wrote, if anything."""
    bench.connect()
    mine, wrong = f"w{time.time_ns()}", []

    def wrote(what, count, sql, rows=None):
        try:
            found = bench.tool.ask("update", sql=sql, rows=rows)
        except Refused as error:
            wrong.append(f"{what}: {' '.join(str(error).split())[:120]}")
        else:
            if found not in (count, None):
                wrong.append(f"{what}: {found} rows written instead of {count}")

    def literals(*places):
        return ", ".join(f"('{mine}-{place}', '2026-01-01T00:00:00Z', {place}.5)" for place in places)

    def seen(expected):
        found = bench.numbers(f"SELECT count(*), sum(score) FROM history.notes WHERE id LIKE '{mine}-%'")
        if found != [expected]:
            wrong.append(f"{found} are there instead of {expected}")

    wrote("literals", 2, f"INSERT INTO notes VALUES {literals(0, 1)}")
    seen([2.0, 2.0])
    batch = [[{"type": "text", "value": f"{mine}-{place}"}, {"type": "timestamp", "value": "2026-01-01T00:00:00+00:00"}, {"type": "double", "value": f"{place}.5"}]
             for place in (2, 3, 4)]
    try:
        wrote("batch", 3, "INSERT INTO notes VALUES (?, ?, ?)", batch)
        seen([5.0, 12.5])
    except NotOffered:
        pass
    wrote("deletion", 1, f"DELETE FROM notes WHERE id = '{mine}-0'")
    assert [1.0] not in bench.numbers(f"SELECT count(*) FROM notes WHERE id = '{mine}-0'"), "a deleted row is there"
    assert not wrong, "; ".join(wrong)


def keep_alive(bench):
    """The server sends an empty batch every 100 ms of silence: while it computes, the relay hears one at least every second."""
    with Proxy(bench.port) as proxy:
        bench.connect(port=proxy.port)
        marker = marked()
        with watched(bench, marker) as moments:
            bench.sees(LENGTHY.format(marker), [[2000.0 * marker]])
    assert moments and moments[-1] - moments[0] > 2, "the server computed for less than two seconds: too short to tell"
    heard = [moments[0], *(one for one in proxy.heard if moments[0] < one < moments[-1]), moments[-1]]
    silence = max(later - earlier for earlier, later in itertools.pairwise(heard))
    assert silence < 1, f"nothing came for {silence:.1f} s"


# In the order of the table's columns.
CHECKS = {
    "connect": connect, "browse": browse, "features": features, "types": types, "rarer types": rarer_types, "nested": nested, "parameters": parameters,
    "decimal parameters": decimals, "rarer parameters": rarer_parameters, "1 M rows": million, "endpoints": endpoints, "empty": empty, "error": error, "late error": late_error, "cancel": cancel,
    "reconnect": reconnect, "clock by SQL": by_sql, "clock by SET": by_set, "clock by option": by_option, "clock by header": by_header,
    "uploaded spine": uploaded_spine, "view as spine": view_spine, "spine in the statement": statement_spine,
    "writes": writes, "keep-alive": keep_alive}


def outcome(bench, check):
    """`{"result": "pass" | "fail" | "not offered", "why": ...}` of one check."""
    try:
        (CHECKS | CHARTS)[check](bench)
    except NotOffered as reason:
        return {"result": "not offered", "why": str(reason)}
    except (AssertionError, Refused, ValueError, TypeError) as reason:
        return {"result": "fail", "why": " ".join(str(reason).split())[:700]}
    return {"result": "pass"}
