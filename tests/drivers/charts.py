"""The checks of tools that draw: what a saved chart shows is right, of the state, of another time, of a join and of a million
versions. They stand in the tool's own section, not in the table of all drivers."""

import datetime as dt

from warehouse import MILLION, SPINE, UTC


def drawn(bench, metrics, axis, table=None, sql=None, grain=None, time_range=None):
    found = bench.tool.ask("chart", table=table, sql=sql, axis=axis, grain=grain, metrics=metrics, time_range=time_range)
    return [(place, *(number if number is None else float(number) for number in numbers)) for place, *numbers in found]


def instant(cell):
    """A chart's place on the axis of time, which is milliseconds or text."""
    found = dt.datetime.fromtimestamp(float(cell) / 1000, UTC) if cell.replace(".", "").isdigit() else dt.datetime.fromisoformat(cell)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def shows(found, expected):
    assert found == expected, f"{found} instead of {expected}"


def time_series(bench):
    """A quarter of the million ticks falls into each of four hours; the range leaves out the last."""
    bench.connect()
    metrics = {"versions": "count(*)", "sum of n": "sum(n)"}
    quarter = MILLION // 4
    points = [(dt.datetime(2026, 1, 1, hour, tzinfo=UTC), quarter, sum(range(hour * quarter, (hour + 1) * quarter))) for hour in range(4)]
    for time_range, expected in ((None, points), ("2026-01-01T00:00:00 : 2026-01-01T03:00:00", points[:3])):
        found = drawn(bench, metrics, "at", table="ticks", grain="PT1H", time_range=time_range)
        shows([(instant(place), *numbers) for place, *numbers in found], expected)


def aggregate(bench):
    bench.connect()
    shows(drawn(bench, {"price": "max(price)"}, "sku", table="prices"), [("a", 3.0), ("b", 2.0)])


def another_time(bench):
    """By SQL in a dataset, and by a header in the address of the database."""
    bench.connect()
    past = "SELECT sku, price FROM prices AT (TIMESTAMP => '2026-01-03T00:30:00Z')"
    shows(drawn(bench, {"price": "max(price)"}, "sku", sql=past), [("a", 1.0), ("b", 2.0)])
    shows(drawn(bench, {"price": "max(price)"}, "sku", sql="SELECT sku, price FROM as_of('prices', event_time => '2026-01-01')"), [("a", 1.0)])
    bench.connect(headers={"featureflight-valid-time": "2026-01-02"})
    shows(drawn(bench, {"price": "max(price)"}, "sku", table="prices"), [("a", 1.0), ("b", 2.0)])


def joined(bench):
    bench.connect()
    rows = ", ".join(f"('{sku}', TIMESTAMP '{ts:%Y-%m-%d %H:%M:%S}', {label})" for sku, ts, label, _ in SPINE)
    spine = f"SELECT * FROM (VALUES {rows}) v(sku, ts, label)"
    found = drawn(bench, {"price": "max(price)"}, "label", sql=f"SELECT label, price FROM point_in_time_join(({spine}), 'prices:price')")
    shows([(float(label), price) for label, price in found], [(label, price) for _, _, label, price in SPINE])


CHARTS = {"time series": time_series, "aggregate": aggregate, "chart of another time": another_time, "chart of a point-in-time join": joined}
