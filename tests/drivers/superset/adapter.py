"""Apache Superset: its server over the REST API, called as its pages do when one connects a database, browses, uses
SQL Lab and draws a chart."""

import contextlib
import http.cookiejar
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from adapter import Adapter, NotOffered, main, text, total  # noqa: E402

USER = "admin"


class Answer(Exception):
    """What Superset says in place of a result."""


class Server:
    """`superset run` on a copy of the metadata database at `home`, with somebody signed in."""

    def __init__(self, home):
        self.folder = tempfile.TemporaryDirectory()
        shutil.copytree(home, self.folder.name, dirs_exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        environment = os.environ | {"SUPERSET_HOME": self.folder.name, "SUPERSET_CONFIG_PATH": str(HERE / "superset_config.py"), "FLASK_APP": "superset"}
        self.process = subprocess.Popen(
            [Path(sys.executable).with_name("superset"), "run", "-h", "127.0.0.1", "-p", str(port)], env=environment, stdout=sys.stderr)
        self.place = f"http://127.0.0.1:{port}"
        self.headers = {"Referer": self.place}
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
        self.wait()
        token = self.call("POST", "/security/login", {"username": USER, "password": USER, "provider": "db"})["access_token"]
        self.headers["Authorization"] = f"Bearer {token}"
        self.headers["X-CSRFToken"] = self.call("GET", "/security/csrf_token/")["result"]

    def wait(self):
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError), self.opener.open(f"{self.place}/health"):
                return
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("superset did not start")
            time.sleep(0.2)

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        kind = {"Content-Type": "application/json"} if data else {}
        request = urllib.request.Request(f"{self.place}/api/v1{path}", data, self.headers | kind, method=method)
        try:
            with self.opener.open(request) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise Answer(said(error.read().decode())) from None

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()


def said(body):
    """The text of an error's JSON that a page shows."""
    try:
        found = json.loads(body)
    except ValueError:
        return body
    errors = found.get("errors")
    return " ".join(error["message"] for error in errors) if errors else str(found.get("message", body))


def fields(**values):
    """The `q` of a request: Rison, of names alone."""
    return "(" + ",".join(f"{name}:{value}" for name, value in values.items()) + ")"


class Superset(Adapter):
    def __init__(self, home):
        self.home = home
        self.server = Server(home)
        self.tab = []

    def about(self):
        return {name: version(name) for name in ("apache-superset", "flightsql-dbapi", "sqlalchemy", "pyarrow")}

    def connect(self, host, port, headers, user, password):
        """The dialect sends the token `None` without a user, so there always is one."""
        more = "".join(f"&{name}={urllib.parse.quote(value)}" for name, value in headers.items())
        uri = f"datafusion://{user or 'anyone'}:{password or 'any'}@{host}:{port}?insecure=True{more}"
        database = {"database_name": uuid.uuid4().hex, "sqlalchemy_uri": uri}
        self.tab.clear()
        self.server.call("POST", "/database/test_connection/", database)
        self.database = self.server.call("POST", "/database/", database | {"expose_in_sqllab": True, "allow_dml": True})["id"]

    def close(self):
        self.tab.clear()

    def run(self, sql):
        """A run of SQL Lab is a session of its own, so what a query needs stands before it in the tab."""
        self.tab.append(sql)

    def executed(self, sql, client=None):
        return self.server.call("POST", "/sqllab/execute/", {
            "client_id": client or uuid.uuid4().hex[:10], "database_id": self.database, "schema": "features",
            "sql": ";\n".join([*self.tab, sql]), "runAsync": False, "queryLimit": 2_000_000})

    def query(self, sql, parameters):
        if parameters:
            raise NotOffered("SQL Lab has templates, no parameters")
        found = self.executed(sql)
        names = [column["column_name"] for column in found["columns"]]
        return {"columns": names, "rows": [[text(row[name]) for name in names] for row in found["data"]]}

    def drain(self, sql):
        rows = self.executed(sql)["data"]
        numeric = [name for name, value in (rows[-1] if rows else {}).items() if isinstance(value, (int, float))]
        return {"rows": len(rows), "sums": {name: total(row[name] for row in rows) for name in numeric}}

    def browse(self):
        place = f"/database/{self.database}"
        found = {"catalogs": None, "tables": [], "columns": [], "keys": None}
        found["schemas"] = self.server.call("GET", f"{place}/schemas/?q={fields(force='!t')}")["result"]
        for schema in found["schemas"]:
            for table in self.server.call("GET", f"{place}/tables/?q={fields(force='!t', schema_name=schema)}")["result"]:
                name = table["value"]
                found["tables"].append([schema, name])
                columns = self.server.call("GET", f"{place}/table_metadata/?name={name}&schema={schema}")["columns"]
                found["columns"] += [[schema, name, column["name"]] for column in columns]
        return found

    def option(self, name, value):
        raise NotOffered("no options of a session; write `SET` before the query or a header into the URI")

    def upload(self, name, columns, rows):
        raise NotOffered("an upload makes a permanent table; make the spine a temporary view in the same run")

    def cancel(self, sql, after):
        client = uuid.uuid4().hex[:10]
        try:
            return self.cancelling(lambda: self.executed(sql, client), lambda: self.server.call("POST", "/query/stop", {"client_id": client}), after)
        finally:
            # What the dialect cannot cancel would compute on.
            self.server.stop()
            self.server = Server(self.home)

    def chart(self, table, sql, axis, grain, metrics, time_range):
        """Saves a dataset and a chart, and fetches the chart's data: rows of the axis and the metrics."""
        name = table or uuid.uuid4().hex
        source = {"database": self.database, "schema": "features", "table_name": name} | ({"sql": sql} if sql else {})
        dataset = self.server.call("POST", "/dataset/", source)["id"]
        column = {"label": axis, "sqlExpression": axis, "expressionType": "SQL"}
        if grain:
            column |= {"columnType": "BASE_AXIS", "timeGrain": grain}
        chosen = [{"label": label, "expressionType": "SQL", "sqlExpression": expression} for label, expression in metrics.items()]
        filters = [{"col": axis, "op": "TEMPORAL_RANGE", "val": time_range}] if time_range else []
        context = {
            "datasource": {"id": dataset, "type": "table"}, "force": True, "result_format": "json", "result_type": "full",
            "queries": [{"columns": [column], "metrics": chosen, "filters": filters, "orderby": [[column, True]], "row_limit": 10_000}]}
        kind = "echarts_timeseries_line" if grain else "echarts_timeseries_bar"
        saved = self.server.call("POST", "/chart/", {
            "slice_name": name, "viz_type": kind, "datasource_id": dataset, "datasource_type": "table",
            "params": json.dumps({"viz_type": kind}), "query_context": json.dumps(context)})["id"]
        try:
            drawn = self.server.call("GET", f"/chart/{saved}/data/?force=true")["result"][0]["data"]
            return [[text(row[label]) for label in (axis, *metrics)] for row in drawn]
        finally:
            # A dataset's name is unique in metadata on SQLite, beyond its database.
            self.server.call("DELETE", f"/chart/{saved}")
            self.server.call("DELETE", f"/dataset/{dataset}")


if __name__ == "__main__":
    main(Superset(sys.argv[1]))
