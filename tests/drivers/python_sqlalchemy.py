"""SQLAlchemy over ADBC, by the dialect of the package sqlalchemy-adbc."""

from importlib.metadata import version
from urllib.parse import quote

import pyarrow
import sqlalchemy
from adapter import Adapter, main, python, text, total


class SqlAlchemy(Adapter):
    packages = ["sqlalchemy", "sqlalchemy-adbc", "adbc-driver-flightsql"]
    engine = None

    def about(self):
        return {name: version(name) for name in self.packages}

    def connect(self, host, port, headers, user, password):
        self.close()
        more = f"&username={quote(user)}&password={quote(password)}" if user else ""
        more += "".join(f"&header.{name}={quote(value)}" for name, value in headers.items())
        self.engine = sqlalchemy.create_engine(f"adbc+flightsql://{host}:{port}?tls=false{more}")
        self.connection = self.engine.connect()

    def close(self):
        if self.engine:
            self.connection.close()
            self.engine.dispose()
            self.engine = None

    def run(self, sql):
        self.connection.exec_driver_sql(sql)

    def query(self, sql, parameters):
        result = self.connection.exec_driver_sql(sql, tuple(python(p) for p in parameters) if parameters else None)
        return {"columns": list(result.keys()), "rows": [[text(value) for value in row] for row in result]}

    def update(self, sql, rows):
        return self.connection.exec_driver_sql(sql, [tuple(python(p) for p in row) for row in rows] if rows else None).rowcount

    def drain(self, sql):
        result = self.connection.exec_driver_sql(sql)
        rows, sums = 0, {}
        while part := result.fetchmany(50_000):
            rows += len(part)
            for name, column in zip(result.keys(), zip(*part)):
                if isinstance(column[-1], (int, float)):
                    sums[name] = sums.get(name, 0) + total(column)
        return {"rows": rows, "sums": sums}

    def browse(self):
        inspector = sqlalchemy.inspect(self.engine)
        found = {"catalogs": None, "schemas": inspector.get_schema_names(), "tables": [], "columns": [], "keys": None}
        for schema in found["schemas"]:
            for table in [*inspector.get_table_names(schema), *inspector.get_view_names(schema)]:
                found["tables"].append([schema, table])
                found["columns"] += [[schema, table, column["name"]] for column in inspector.get_columns(table, schema)]
        return found

    def driver(self):
        return self.connection.connection.driver_connection

    def option(self, name, value):
        self.driver().adbc_connection.set_options(**{"adbc.flight.sql.session.option." + name: value})

    def upload(self, name, columns, rows):
        values = {c: [python({"type": kind, "value": row[i]}) for row in rows] for i, (c, kind) in enumerate(columns)}
        with self.driver().cursor() as cursor:
            cursor.adbc_ingest(name, pyarrow.table(values), mode="create", temporary=True)

    def cancel(self, sql, after):
        running = []
        sqlalchemy.event.listen(self.engine, "before_cursor_execute", lambda connection, cursor, *_: running.append(cursor))
        return self.cancelling(lambda: self.query(sql, None), lambda: running[-1].adbc_cancel(), after)


if __name__ == "__main__":
    main(SqlAlchemy())
