"""The page of the book with the drivers' table, made of the committed results."""

import json

from checks import CHECKS
from paths import HERE, ROOT
from long_runs import LONG_RUNS
from tools import DRIVERS

PAGE = ROOT / "docs" / "connecting" / "drivers.md"
SIGNS = {"pass": "yes", "fail": "**no**", "not offered": "–", "not measured": "?"}
UNMEASURED = {"result": "not measured"}

INTRODUCTION = """\
# Drivers, measured

Every cell is what happened when the driver ran against the server; `tests/drivers/run` runs them and writes this page from `tests/drivers/results/`. The quick ones run
with the tests, where an outcome that is not the committed one fails; the others with `tests/drivers/run --heavy`. Expected values are written by hand or come from arithmetic.
Times are those of a debug build on two shared cores.

**yes**: the answer is right. **no**: it is not, and the driver's section says why. **–**: the driver offers no such thing, or the check does not apply. **?**: not measured yet.
"""

MEANINGS = """\
## What is checked

| | |
|---|---|
| connect | without and with a user and password |
| browse | catalogs, schemas, tables, columns and keys of everything, as far as the driver asks; in JDBC every property of the database too |
| features | integers, fractions, text and event times of a feature group at their extremes, and nulls |
| types | booleans, integers of 8 to 64 bits with and without sign, floats with NaN and infinities, decimals of 38 digits, text, binary, dates and instants of the years 1 to 9999, each with a null |
| rarer types | time of day, interval, duration, decimals with 38 digits before or behind the point and with 76, binary of a fixed size, map |
| nested | a list with a null, a struct, a null list |
| parameters | text, integer, double, instant and null, an instant as the time of `FOR VALID_TIME AS OF` |
| decimal parameters | decimals with ten digits behind the point, one of them with 28 nines before it |
| rarer parameters | boolean, date and binary |
| 1 M rows | a million rows of four columns, their number and sums |
| endpoints | the same through four endpoints, each of which is fetched, in Spark by a task of its own unless its section says otherwise; an ordered result keeps its order |
| empty | a result without rows that has its columns |
| error | a misspelt column, table and statement; the message names them, and the connection goes on |
| late error | a failure on the last of a million rows is an error, never a shorter result |
| cancel | the call ends, and the server stops working, within two seconds |
| reconnect | the connection is cut under a session with a clock: each answer then is the clock's or an error, and within seconds there is an answer; a tool without sessions has its clock by header |
| clock by SQL, SET, option, header | time travel, by each spelling; a malformed header is refused |
| uploaded spine, view as spine, spine in the statement | a point-in-time join with a spine the driver uploaded, a temporary view, or a query within the statement |
| writes | `INSERT` of literals, of a batch of parameters where there are any, and `DELETE`, each with the right number of rows |
| keep-alive | a query of some seconds on whose connection the server is never silent for a second |
| time series, aggregate, chart of ... | the data of a saved chart: a million versions by the hour, a maximum by record, the same of another time by SQL and by a header, a point-in-time join |
"""

REPLAYED = """\
## Not run, replayed

ODBC (Power BI, Excel, Tableau's ODBC) cannot be had for the machines these tests run on. Its calls, in its order and with its quirks, are replayed on the protocol by
`tests/tests/protocol/replay_odbc.rs`; that is a stand-in, written from what is known of the driver. Its connection string is `HOST=...;PORT=...;UID=...;PWD=...;UseEncryption=false`; further keys are headers. DBeaver, Tableau and Databricks were not run either: what is run is the
JDBC driver they use.

R (`adbcflightsql`) and C# (`Apache.Arrow.Flight.Sql`) were not run: their packages are on CRAN and NuGet, which these machines do not reach, and Debian has neither
them nor .NET. R's is the Go driver that ADBC in Python and Go is.
"""


def results(measured):
    """What a driver or a long run left."""
    path = HERE / "results" / f"{measured.name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def row(title, cells):
    return f"| {title} | {' | '.join(cells)} |"


def section(driver, found):
    versions = ", ".join(f"{name} {version}" for name, version in sorted(found["versions"].items()))
    yield f"## {driver.title}\n\n{driver.connection}\n"
    if driver.remark:
        yield driver.remark + "\n"
    million = found["checks"]["1 M rows"]
    took = f"; a million rows took {million['seconds']} s" if million["result"] == "pass" else ""
    yield f"Measured on {found['date']} with {versions}{took}.\n"
    yield "".join(reason(driver, name, check) for name, check in found["checks"].items() if "why" in check or name in driver.more)


def reason(driver, name, check):
    """What the check saw, and what a user makes of it."""
    saw = f"{SIGNS[check['result']]} {check.get('why', '').replace('|', '/').replace('<', '&lt;')}".rstrip()
    because = f". {driver.because[name]}" if name in driver.because else ""
    return f"- {name}: {saw}{because}\n"


def told(figures):
    """`figures` as a sentence; those of a figure that has several stand in brackets."""
    return ", ".join(f"{name}: ({told(value)})" if isinstance(value, dict) else f"{name}: {value:,}" for name, value in figures.items())


def long_run(run, found):
    return f"## {run.title}\n\n{run.meaning}\n\nMeasured on {found['date']}: {told(found['figures'])}.\n"


def text():
    measured = [(driver, found) for driver in DRIVERS if (found := results(driver))]
    table = [row("", CHECKS), "|---" * (len(CHECKS) + 1) + "|"]
    for driver, found in measured:
        table.append(row(driver.title, [SIGNS[found["checks"].get(name, UNMEASURED)["result"]] for name in CHECKS]))
    sections = ["".join(f"{part}\n" for part in section(driver, found)).rstrip() + "\n" for driver, found in measured]
    long_runs = [long_run(run, found) for run in LONG_RUNS if (found := results(run))]
    return "\n".join([INTRODUCTION, "\n".join(table) + "\n", *sections, *long_runs, REPLAYED, MEANINGS])
