"""Runs the drivers' checks against a server of its own and writes results/DRIVER.json and the page of the book.

`--heavy` runs all, installing what is missing under the cache folder; names choose some. The heavy
ones need Go, Node and cargo as well.
"""

import argparse
import datetime as dt
import json

import page
from checks import CHECKS
from paths import HERE
from suite import passed_through, server
from tools import DRIVERS


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--heavy", action="store_true")
    parser.add_argument("--check", action="append", choices=CHECKS, help="only these; writes nothing")
    parser.add_argument("drivers", nargs="*", metavar="DRIVER", help=", ".join(d.name for d in DRIVERS))
    asked = parser.parse_args()
    chosen = [d for d in DRIVERS if d.name in asked.drivers or not asked.drivers and (asked.heavy or not d.heavy)]
    with server() as running:
        for driver in chosen:
            print(f"{driver.title}:", flush=True)
            found = {}
            for name, result in passed_through(driver, running, asked.check or CHECKS):
                found[name] = result
                print(f"  {name}: {result}", flush=True)
            if not asked.check:
                record = {"date": dt.date.today().isoformat(), "versions": found.pop("versions"), "checks": found}
                (HERE / "results" / f"{driver.name}.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    if not asked.check:
        page.PAGE.write_text(page.text())


if __name__ == "__main__":
    main()
