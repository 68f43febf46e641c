"""Runs the drivers' checks against a server of its own and writes results/DRIVER.json and the page of the book.

`--heavy` runs all, installing what is missing under the cache folder, and the long runs after them; names choose some. The heavy
ones need Go, Node and cargo as well.
"""

import argparse
import datetime as dt
import json

import page
from charts import CHARTS
from checks import CHECKS
from long_runs import LONG_RUNS
from paths import HERE
from suite import passed_through, server
from tools import DRIVERS


def record(name, **found):
    text = json.dumps({"date": dt.date.today().isoformat(), **found}, indent=1, ensure_ascii=False)
    (HERE / "results" / f"{name}.json").write_text(text + "\n")


def measure(driver, running, only):
    print(f"{driver.title}:", flush=True)
    found = {}
    for name, result in passed_through(driver, running, only):
        found[name] = result
        print(f"  {name}: {result}", flush=True)
    if not only:
        record(driver.name, versions=found.pop("versions"), checks=found)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--heavy", action="store_true")
    parser.add_argument("--check", action="append", choices=[*CHECKS, *CHARTS], help="only these; writes nothing")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(one.name for one in (*DRIVERS, *LONG_RUNS)))
    asked = parser.parse_args()
    drivers = [d for d in DRIVERS if d.name in asked.names or not asked.names and (asked.heavy or not d.heavy)]
    long_runs = [run for run in LONG_RUNS if run.name in asked.names or not asked.names and asked.heavy and not asked.check]
    if drivers:
        with server() as running:
            for driver in drivers:
                measure(driver, running, asked.check)
    for run in long_runs:
        print(f"{run.title}:", flush=True)
        record(run.name, figures=run.measured())
    if not asked.check:
        page.PAGE.write_text(page.text())


if __name__ == "__main__":
    main()
