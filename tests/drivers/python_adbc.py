"""ADBC's Flight SQL driver in Python, with what reads its results: `python_adbc.py pyarrow|pandas|polars|duckdb`."""

import sys
from importlib.metadata import version

import adbc_driver_flightsql
import adbc_driver_flightsql.dbapi as flightsql
import duckdb
import pandas
import polars
import pyarrow as pa
from adapter import Adapter, NotOffered, main, python, text, total

HEADER = adbc_driver_flightsql.DatabaseOptions.RPC_CALL_HEADER_PREFIX.value
SESSION = "adbc.flight.sql.session.option."


class Pyarrow(Adapter):
    packages = ["adbc-driver-flightsql", "adbc-driver-manager", "pyarrow"]
    connection = None

    def about(self):
        return {name: version(name) for name in self.packages}

    def connect(self, host, port, headers, user, password):
        self.close()
        options = {HEADER + name: value for name, value in headers.items()}
        if user:
            options |= {"username": user, "password": password}
        self.connection = flightsql.connect(f"grpc://{host}:{port}", options, autocommit=True)
        self.cursor = self.connection.cursor()

    def close(self):
        if self.connection:
            self.cursor.close()
            self.connection.close()
            self.connection = None

    def fetched(self, sql, parameters):
        self.cursor.execute(sql, parameters)
        return self.cursor.fetch_arrow_table()

    def query(self, sql, parameters):
        table = self.fetched(sql, parameters and [python(p) for p in parameters])
        columns, rows = self.cells(table)
        return {"columns": columns, "rows": [[text(value) for value in row] for row in rows]}

    def run(self, sql):
        self.cursor.execute(sql)

    def cells(self, table):
        return table.column_names, zip(*(column.to_pylist() for column in table.columns))

    def drain(self, sql):
        self.cursor.execute(sql)
        rows, sums = 0, {}
        for batch in self.cursor.fetch_record_batch():
            rows += batch.num_rows
            for name, column in zip(batch.schema.names, batch.columns):
                if not pa.types.is_string(column.type) and not pa.types.is_timestamp(column.type):
                    sums[name] = sums.get(name, 0) + (pa.compute.sum(column).as_py() or 0)
        return {"rows": rows, "sums": sums}

    def browse(self):
        found = {"catalogs": [], "schemas": [], "tables": [], "columns": [], "keys": None}
        for catalog in self.connection.adbc_get_objects(depth="all").read_all().to_pylist():
            found["catalogs"].append(catalog["catalog_name"])
            for schema in catalog["catalog_db_schemas"]:
                name = schema["db_schema_name"]
                found["schemas"].append(name)
                for table in schema["db_schema_tables"]:
                    found["tables"].append([name, table["table_name"]])
                    found["columns"] += [[name, table["table_name"], c["column_name"]] for c in table["table_columns"]]
        return found

    def update(self, sql, rows):
        if rows:
            self.cursor.executemany(sql, [[python(p) for p in row] for row in rows])
        else:
            self.cursor.execute(sql)
        return self.cursor.rowcount

    def option(self, name, value):
        self.connection.adbc_connection.set_options(**{SESSION + name: value})

    def upload(self, name, columns, rows):
        values = [[python({"type": kind, "value": row[i]}) for row in rows] for i, (_, kind) in enumerate(columns)]
        self.cursor.adbc_ingest(name, self.frame([c for c, _ in columns], values), mode="create", temporary=True)

    def frame(self, names, values):
        return pa.table(dict(zip(names, values)))

    def cancel(self, sql, after):
        return self.cancelling(lambda: self.fetched(sql, None), self.cursor.adbc_cancel, after)


class Pandas(Pyarrow):
    packages = ["adbc-driver-flightsql", "pandas"]

    def fetched(self, sql, parameters):
        if parameters:
            raise NotOffered("read_sql has no parameters on ADBC; use a cursor")
        return pandas.read_sql(sql, self.connection, dtype_backend="pyarrow")

    def cells(self, table):
        return list(table.columns), zip(*(pa.array(table[name]).to_pylist() for name in table.columns))

    def drain(self, sql):
        frame = self.fetched(sql, None)
        numeric = frame.select_dtypes("number")
        return {"rows": len(frame), "sums": {name: numeric[name].sum() for name in numeric.columns}}

    def frame(self, names, values):
        return pa.Table.from_pandas(pandas.DataFrame(dict(zip(names, values))))

    def cancel(self, sql, after):
        raise NotOffered("read_sql has no cancel; use a cursor")


class Polars(Pyarrow):
    packages = ["adbc-driver-flightsql", "polars"]

    def fetched(self, sql, parameters):
        return polars.read_database(sql, self.connection, execute_options={"parameters": parameters} if parameters else None)

    def cells(self, table):
        return table.columns, table.rows()

    def drain(self, sql):
        frame = self.fetched(sql, None)
        numeric = frame.select(polars.selectors.numeric())
        return {"rows": frame.height, "sums": {name: numeric[name].sum() for name in numeric.columns}}

    def frame(self, names, values):
        return polars.DataFrame(dict(zip(names, values)))

    def cancel(self, sql, after):
        raise NotOffered("read_database has no cancel; use a cursor")


class Duckdb(Pyarrow):
    packages = ["adbc-driver-flightsql", "duckdb"]

    def fetched(self, sql, parameters):
        self.cursor.execute(sql, parameters)
        stream = self.cursor.fetch_record_batch()
        found = duckdb.sql("SELECT * FROM stream")
        return found.columns, found.fetchall()

    def cells(self, table):
        return table

    def drain(self, sql):
        self.cursor.execute(sql)
        stream = self.cursor.fetch_record_batch()
        rows, n, half = duckdb.sql("SELECT count(*), sum(n), sum(half) FROM stream").fetchall()[0]
        return {"rows": rows, "sums": {"n": int(n), "half": half}}

    def frame(self, names, values):
        spine = super().frame(names, values)
        return duckdb.sql("SELECT * FROM spine").to_arrow_table()


if __name__ == "__main__":
    main({"pyarrow": Pyarrow, "pandas": Pandas, "polars": Polars, "duckdb": Duckdb}[sys.argv[1]]())
