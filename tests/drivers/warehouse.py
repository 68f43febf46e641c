"""The warehouse all drivers read, and the answers it must give, written by hand or by arithmetic: nothing here
comes from the server."""

import datetime as dt
import json
import math
import re
import struct
import sys
from decimal import Decimal

import pyarrow as pa

from paths import ROOT

sys.path.insert(0, str(ROOT / "tests" / "python"))
from sagemaker_layout import description, write_warehouse  # noqa: E402

UTC = dt.timezone.utc
MILLION = 1_000_000


def utc(day, hour=0):
    return dt.datetime(2026, 1, day, hour, tzinfo=UTC)


# A price landed at the end of its event time's hour: `a` was 1 until the 3rd.
PRICES = description("prices", "sku", "at", {"sku": "String", "at": "String", "price": "Fractional"})
PRICE_ROWS = [("a", "2026-01-01T00:00:00Z", 1.0), ("a", "2026-01-03T00:00:00Z", 3.0), ("b", "2026-01-02T00:00:00Z", 2.0)]

# Each spine row with the price it must meet.
SPINE = [("a", utc(1), 0, 1.0), ("a", utc(2, 23), 1, 1.0), ("a", utc(3), 2, 3.0), ("b", utc(1, 23), 3, None), ("c", utc(9), 4, None)]

# What a feature can hold, by record: integer, fraction, text.
EXTREMES = description(
    "extremes", "id", "at", {"id": "String", "at": "String", "whole": "Integral", "part": "Fractional", "words": "String"})
EXTREME_ROWS = [
    ("high", 2**63 - 1, sys.float_info.max, "x" * 100_000), ("low", -(2**63), -sys.float_info.max, ""),
    ("null", None, None, None), ("odd", 0, math.inf, "ä€😀 'quoted' \"twice\"\n\ttab"), ("small", -1, 5e-324, "NULL")]

# A million versions in four hours, so that there are several files; `half` is null in every tenth.
TICKS = description("ticks", "id", "at", {"id": "String", "at": "Fractional", "n": "Integral", "half": "Fractional"})
TICK_SUMS = {"n": MILLION * (MILLION - 1) // 2, "half": (MILLION * (MILLION - 1) // 2 - 10 * (MILLION // 10) * (MILLION // 10 - 1) // 2) / 2}


def instant(text):
    return f"arrow_cast('{text}', 'Timestamp(Microsecond, Some(\"UTC\"))')"


def each(sql_type, *texts):
    return [f"CAST('{text}' AS {sql_type})" for text in texts]


def single(text):
    """The float of 32 bits; drivers print it in 8 digits or in 17."""
    return struct.unpack("f", struct.pack("f", float(text)))[0]


def whole(sql_type, arrow, low, high):
    return sql_type.lower(), int, [f"arrow_cast('{low}', '{arrow}')", f"arrow_cast('{high}', '{arrow}')"], [low, high]


# Name, how the text of a cell is read, the SQL of the values, the values; each is asked for with a null after them.
SCALARS = [
    ("boolean", {"true": True, "false": False}.__getitem__, ["true", "false"], [True, False]),
    *(whole(f"{'u' * unsigned}int{bits}", f"{'U' * unsigned}Int{bits}", 0 if unsigned else -(2 ** (bits - 1)),
            2**bits - 1 if unsigned else 2 ** (bits - 1) - 1) for unsigned in (False, True) for bits in (8, 16, 32, 64)),
    ("real", single, each("REAL", "3.4028235e38", "-1.5", "NaN"), [3.4028234663852886e38, -1.5, math.nan]),
    ("double", float, each("DOUBLE", "1.7976931348623157e308", "5e-324", "-0.0", "inf", "-inf", "NaN"),
     [sys.float_info.max, 5e-324, -0.0, math.inf, -math.inf, math.nan]),
    ("decimal(38, 10)", Decimal, each("DECIMAL(38, 10)", "9" * 28 + "." + "9" * 10, "-0.0000000001"),
     [Decimal("9" * 28 + "." + "9" * 10), Decimal("-0.0000000001")]),
    ("text", str, ["'ä€😀 ''quoted'''", "''", "'NULL'"], ["ä€😀 'quoted'", "", "NULL"]),
    ("binary", bytes.fromhex, ["X'00ff10'", "X''"], [b"\x00\xff\x10", b""]),
    ("date", dt.date.fromisoformat, each("DATE", "0001-01-01", "1969-12-31", "9999-12-31"),
     [dt.date(1, 1, 1), dt.date(1969, 12, 31), dt.date(9999, 12, 31)]),
    ("timestamp", dt.datetime.fromisoformat,
     [instant(t) for t in ("1969-12-31T23:59:59.999999", "2026-03-29T02:30:00", "1600-02-29T00:00:00.000001", "2262-04-12T00:00:00", "9999-12-31T23:59:59.999999")],
     [dt.datetime(1969, 12, 31, 23, 59, 59, 999999, UTC), dt.datetime(2026, 3, 29, 2, 30, tzinfo=UTC),
      dt.datetime(1600, 2, 29, 0, 0, 0, 1, UTC), dt.datetime(2262, 4, 12, tzinfo=UTC), dt.datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)]),
]


def span(text):
    """Months, days and seconds of an ISO duration; some write a blank and a second `P` before the time, some a sign before all."""
    if text.startswith("-P"):
        return tuple(-part for part in span(text[1:]))
    date, _, clock = text.replace(" P", "").partition("T")

    def part(letter, of):
        return sum(Decimal(number) for number in re.findall(rf"(-?[\d.]+){letter}", of))

    return 12 * part("Y", date) + part("M", date), 7 * part("W", date) + part("D", date), 3600 * part("H", clock) + 60 * part("M", clock) + part("S", clock)


def length(text):
    """Seconds of an ISO duration without months."""
    months, days, seconds = span(text)
    return (months, 86400 * days + seconds)


def mapping(text):
    """Some hand a map out as a list of its entries."""
    found = json.loads(text)
    entries = [json.loads(one) if isinstance(one, str) else one for one in found] if isinstance(found, list) else None
    return found if entries is None else {one["key"]: one["value"] for one in entries}


def most(digits, behind):
    number = "9" * (digits - behind) + ("." + "9" * behind if behind else "")
    return f"decimal({digits}, {behind})", Decimal, each(f"DECIMAL({digits}, {behind})", number, "-" + number), [Decimal(number), Decimal("-" + number)]


# Of types that few tools have.
RARER = [
    ("time", dt.time.fromisoformat, each("TIME", "00:00:00", "23:59:59.999999"), [dt.time(0), dt.time(23, 59, 59, 999999)]),
    ("interval", span, ["INTERVAL '1 month 2 days 3.5 seconds'", "INTERVAL '-14 months'"], [(1, 2, Decimal("3.5")), (-14, 0, 0)]),
    ("duration", length, ["arrow_cast(90061500000, 'Duration(Microsecond)')", "arrow_cast(-1500000, 'Duration(Microsecond)')"], [(0, Decimal("90061.5")), (0, Decimal("-1.5"))]),
    most(38, 0), most(38, 38), most(76, 0),
    ("binary of a fixed size", bytes.fromhex, ["arrow_cast(X'00ff10', 'FixedSizeBinary(3)')"], [b"\x00\xff\x10"]),
    ("map", mapping, ["MAP {'a': 1, 'b': NULL}"], [{"a": "1", "b": None}]),
]

# Written by drivers.
NOTES = description("notes", "id", "at", {"id": "String", "at": "String", "score": "Fractional"})
NOTE = pa.table({"id": ["first"], "at": ["2026-01-01T00:00:00Z"], "score": [0.0]})


def write(folder):
    """Writes the groups into the warehouse at `folder`."""
    columns = list(zip(*PRICE_ROWS))
    write_warehouse(folder, PRICES, pa.table(dict(zip(("sku", "at", "price"), columns))))
    ids, wholes, parts, words = map(list, zip(*EXTREME_ROWS))
    write_warehouse(folder, EXTREMES, pa.table({
        "id": ids, "at": ["2026-01-01T00:00:00Z"] * len(ids), "whole": pa.array(wholes, pa.int64()), "part": parts, "words": words}))
    write_warehouse(folder, NOTES, NOTE)
    numbers = range(MILLION)
    begin, each_second = utc(1).timestamp(), 4 * 3600 / MILLION
    write_warehouse(folder, TICKS, pa.table({
        "id": [f"t-{n:07}" for n in numbers], "at": [begin + n * each_second for n in numbers],
        "n": pa.array(numbers, pa.int64()), "half": [n / 2 if n % 10 else None for n in numbers]}))
