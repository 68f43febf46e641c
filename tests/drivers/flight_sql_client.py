"""`flight_sql_client`, the command line of the crate arrow-flight: every call is a process, so a connection and a session."""

import re
import subprocess
import sys

from adapter import Adapter, NotOffered, main

ALONE = "every call is a session of its own"


class CommandLine(Adapter):
    def __init__(self, program):
        self.program = program

    def about(self):
        return {"arrow-flight": sys.argv[2]}

    def connect(self, host, port, headers, user, password):
        self.flags = ["--host", host, "--port", str(port)]
        for name, value in headers.items():
            self.flags += ["--header", f"{name}={value}"]
        if user:
            self.flags += ["--username", user, "--password", password]

    def close(self):
        pass

    def call(self, *words):
        done = subprocess.run([self.program, *self.flags, *words], capture_output=True, text=True, timeout=280)
        if done.returncode:
            raise RuntimeError(done.stderr.strip())
        return done.stdout

    def printed(self, *words):
        """The cells of the printed table; it shows nulls as empty text."""
        lines = [line for line in self.call(*words).splitlines() if line.startswith("|")]
        cells = [[cell.strip() or None for cell in line.strip("|").split("|")] for line in lines]
        return (cells[0], cells[1:]) if cells else ([], [])

    def run(self, sql):
        raise NotOffered(ALONE)

    def query(self, sql, parameters):
        if parameters:
            bound = [word for place, p in enumerate(parameters, 1) for word in ("-p", f"${place}={p['value']}")]
            columns, rows = self.printed("prepared-statement-query", sql, *bound)
        else:
            columns, rows = self.printed("statement-query", sql)
        return {"columns": columns, "rows": rows}

    def drain(self, sql):
        columns, rows = self.printed("statement-query", sql)
        number = re.compile(r"-?\d+(\.\d+)?")
        sums = {name: sum(float(row[i]) for row in rows if row[i] and number.fullmatch(row[i])) for i, name in enumerate(columns)}
        return {"rows": len(rows), "sums": sums}

    def browse(self):
        def names(columns, rows, *wanted):
            return [[row[columns.index(name)] for name in wanted] for row in rows]

        catalogs = self.printed("catalogs")
        schemas = self.printed("db-schemas", "featureflight")
        tables = self.printed("tables", "featureflight")
        return {
            "catalogs": [row[0] for row in names(*catalogs, "catalog_name")], "schemas": [row[0] for row in names(*schemas, "db_schema_name")],
            "tables": names(*tables, "db_schema_name", "table_name"), "columns": None, "keys": None}

    def option(self, name, value):
        raise NotOffered(ALONE)

    def upload(self, name, columns, rows):
        raise NotOffered("no uploads")

    def cancel(self, sql, after):
        process = subprocess.Popen([self.program, *self.flags, "statement-query", sql], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def wait():
            if process.wait(30):
                raise RuntimeError("interrupted")

        return self.cancelling(wait, process.terminate, after)


if __name__ == "__main__":
    main(CommandLine(sys.argv[1]))
