"""The drivers: how each is installed, started and named to its users.

Quick ones need what `tests/run` installs and run with the tests; heavy ones install themselves under the cache folder.
"""

import hashlib
import shutil
import subprocess
import sys
from dataclasses import dataclass, field

from charts import CHARTS
from paths import CACHE, HERE


def maven(pom):
    """The folder with the jars of `pom`, downloaded once."""
    text = (HERE / pom).read_bytes()
    folder = CACHE / f"maven-{hashlib.sha256(text).hexdigest()[:16]}"
    if not (folder / "done").exists():
        subprocess.run(
            ["mvn", "-q", "-B", "-f", str(HERE / pom), "dependency:copy-dependencies", f"-DoutputDirectory={folder}"],
            check=True, stdout=sys.stderr)
        (folder / "done").touch()
    return folder


def installed(name, recipe, *steps):
    """The folder of a tool under the cache, made by the commands `steps`, each in that folder, whenever `recipe` changes."""
    folder = CACHE / name
    wanted = hashlib.sha256(repr((recipe, steps)).encode()).hexdigest()
    done = folder / "installed"
    if not done.exists() or done.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for step in steps:
            subprocess.run([part.format(folder=folder) for part in step], check=True, cwd=folder, stdout=sys.stderr)
        done.write_text(wanted)
    return folder


def environment(name, *packages):
    """The Python of an environment of its own with `packages`."""
    pip = ("{folder}/bin/pip", "install", "-q", "--disable-pip-version-check", *packages)
    return str(installed(name, "", (sys.executable, "-m", "venv", "{folder}"), pip) / "bin" / "python")


def spark(script, *arguments):
    def start():
        python = environment("spark", "pyspark==4.3.0", "pyarrow==26.0.1", "pandas<3", "adbc-driver-flightsql==1.13.0", "adbc-driver-manager==1.13.0")
        return [python, str(HERE / script), *(argument() for argument in arguments)]
    return start


def jdbc_jar():
    return str(next(maven("jdbc/pom.xml").glob("flight-sql-jdbc-driver-*.jar")))


def go(client):
    def start():
        source = {file.name: file.read_text() for file in sorted((HERE / "go").iterdir())}
        folder = installed("go", source, ("go", "build", "-C", str(HERE / "go"), "-o", "{folder}/client", "."))
        return [str(folder / "client"), client]
    return start


def node(client):
    def start():
        package = HERE / "node" / "package.json"
        folder = installed("node", package.read_text(), ("cp", str(package), "{folder}"), ("npm", "install", "--silent", "--no-audit", "--no-fund"))
        return ["node", str(HERE / "node" / "adapter.mjs"), client, str(folder)]
    return start


FLIGHT_SQL_CLIENT = "59.3.2"


def flight_sql_client():
    folder = installed(
        "flight_sql_client", "", ("cargo", "install", "-q", "--locked", "arrow-flight", "--version", FLIGHT_SQL_CLIENT, "--features", "cli,flight-sql,tls-ring",
                                  "--bin", "flight_sql_client", "--root", "{folder}", "--target-dir", "{folder}/target"), ("rm", "-r", "{folder}/target"))
    return [sys.executable, str(HERE / "flight_sql_client.py"), str(folder / "bin" / "flight_sql_client"), FLIGHT_SQL_CLIENT]


def jupyterlab():
    python = environment(
        "jupyterlab", "jupyterlab==4.6.6", "jupysql==0.11.1", "sqlalchemy-adbc[flightsql]==0.3.0", "pandas==3.1.1", "pyarrow==26.0.1", "websocket-client")
    return [python, str(HERE / "lab_notebook.py")]


def superset():
    """Superset beside its dialect, which wants SQLAlchemy 1.4 as it does; the last three it needs and does not ask for, or not exactly enough."""
    home, config = "{folder}/home", HERE / "superset" / "superset_config.py"
    command = ("env", f"SUPERSET_HOME={home}", f"SUPERSET_CONFIG_PATH={config}", "FLASK_APP=superset", "{folder}/bin/superset")
    folder = installed(
        "superset", "", (sys.executable, "-m", "venv", "{folder}"),
        ("{folder}/bin/pip", "install", "-q", "--disable-pip-version-check", "apache-superset==6.1.0", "flightsql-dbapi==0.2.2", "flask-caching<2.4", "rich", "cachetools"),
        ("mkdir", home), (*command, "db", "upgrade"),
        (*command, "fab", "create-admin", "--username", "admin", "--firstname", "A", "--lastname", "Dmin", "--email", "admin@localhost", "--password", "admin"),
        (*command, "init"))
    return [str(folder / "bin" / "python"), str(HERE / "superset" / "adapter.py"), str(folder / "home")]


def jdbc(zone):
    return lambda: ["java", f"-Duser.timezone={zone}", "--add-opens=java.base/java.nio=ALL-UNNAMED", "-cp", f"{maven('jdbc/pom.xml')}/*", str(HERE / "jdbc" / "Adapter.java")]


@dataclass(frozen=True)
class Driver:
    name: str
    title: str
    # What a user types to connect, and what to know; both end up on the page.
    connection: str
    remark: str
    # Answers the command that starts the adapter, after installing what it needs.
    start: object
    heavy: bool = False
    # Names of checks beyond those that all pass through.
    more: tuple = ()
    # Why a check fails, for a user to understand; the page has it behind what the check saw.
    because: dict = field(default_factory=dict)


def python(script, *arguments):
    return lambda: [sys.executable, str(HERE / script), *arguments]


def adbc(reader):
    return python("python_adbc.py", reader)


NO_TABLES = "The dialect looks for tables of the type `table`, where the standard has `TABLE`: query `information_schema`."
JDBC_TYPES = "Java has no unsigned integers, and the driver reads 64 bits as signed: cast to `DECIMAL(20, 0)`."
JDBC_BECAUSE = {
    "types": JDBC_TYPES,
    "empty": "`Statement` of version 18.3 lists the columns of an empty result twice, whatever is sent; `PreparedStatement` does not."}
JDBC_TIME = "A time of day has milliseconds in this driver: write `CAST(x AS VARCHAR)`."
SPARK_RARER = "Spark has no interval of months, days and seconds, and no decimal beyond 38 digits: write `CAST(x AS VARCHAR)`."

NODE_INSTANTS = ("Apache Arrow for JavaScript hands instants out as milliseconds in a double, too coarse for microseconds far from 1970: "
                 "`SET featureflight.timestamps = 'text'` sends them as text.")

ADBC = "`adbc_driver_flightsql.dbapi.connect(\"grpc://HOST:PORT\", autocommit=True)`"
DRIVERS = [
    Driver("adbc-pyarrow", "ADBC, Python: pyarrow", ADBC + ", then `cursor.fetch_arrow_table()`",
           "A user and password go into the second argument: `{\"username\": ..., \"password\": ...}`.", adbc("pyarrow")),
    Driver("adbc-pandas", "ADBC, Python: pandas", ADBC + ", then `pandas.read_sql(sql, connection, dtype_backend=\"pyarrow\")`",
           "Without `dtype_backend` integers with nulls become doubles and lose digits.", adbc("pandas")),
    Driver("adbc-polars", "ADBC, Python: polars", ADBC + ", then `polars.read_database(sql, connection)`", "", adbc("polars"),
           because={"rarer types": "polars has no interval and no decimal beyond 38 digits: write `CAST(x AS VARCHAR)`."}),
    Driver("adbc-duckdb", "ADBC, Python: DuckDB", ADBC + ", then `stream = cursor.fetch_record_batch()` and `duckdb.sql(\"SELECT * FROM stream\")`",
           "DuckDB reads the stream as it arrives.", adbc("duckdb"),
           because={"rarer types": "DuckDB hands a month of an interval to Python as 30 days, and has no decimal beyond 38 digits: write `CAST(x AS VARCHAR)`."}),
    Driver("sqlalchemy", "SQLAlchemy", "`sqlalchemy.create_engine(\"adbc+flightsql://HOST:PORT?tls=false&username=USER&password=PASSWORD\")`",
           "The dialect is the package `sqlalchemy-adbc`. It takes `user:password@` for a bearer token, so both go behind the `?`; a header is "
           "`&header.NAME=VALUE`. Its inspector finds no tables, since it looks for the type `table` where the standard has `TABLE`: query `information_schema`.", python("python_sqlalchemy.py"), because={"browse": NO_TABLES}),
    Driver("jupysql", "JupySQL", "`%sql engine`, with `engine` made by SQLAlchemy as above", "", python("python_jupysql.py"), because={"browse": NO_TABLES}),
    Driver("jdbc", "Arrow Flight SQL JDBC", "`jdbc:arrow-flight-sql://HOST:PORT?useEncryption=false&user=USER&password=PASSWORD`",
           "The driver of DBeaver, Tableau (JDBC) and Databricks: `org.apache.arrow:flight-sql-jdbc-driver` of Maven. Java 17 needs "
           "`--add-opens=java.base/java.nio=ALL-UNNAMED`, and the JVM should run in UTC (`-Duser.timezone=UTC`): see the next driver. Further properties of the URL are "
           "headers: `&featureflight-valid-time=2026-01-02`. Instants are read with `getObject(place, OffsetDateTime.class)`; plain `getObject(place)` fails on them in "
           "version 18.3. An empty result of `Statement` lists its columns twice there; of `PreparedStatement` it does not.", jdbc("UTC"), because=JDBC_BECAUSE | {"rarer types": JDBC_TIME}),
    Driver("jdbc-zone", "Arrow Flight SQL JDBC, JVM in New York", "as above, with `-Duser.timezone=America/New_York`",
           "The driver shifts an instant that is bound with `setTimestamp` by the JVM's offset, and so does `getTimestamp`; `getString` and `OffsetDateTime` are right. Run the JVM in UTC, "
           "or write `CAST(? AS TIMESTAMP)` and bind text.", jdbc("America/New_York"),
           because=JDBC_BECAUSE | {"rarer types": "The driver shifts a time of day by the JVM's offset, and it has milliseconds: write `CAST(x AS VARCHAR)`.",
                                   "parameters": "The driver shifts a bound instant by the JVM's offset."}),
    Driver("spark-jdbc", "PySpark, `format(\"jdbc\")`",
           "`spark.read.format(\"jdbc\").option(\"driver\", \"org.apache.arrow.driver.jdbc.ArrowFlightJdbcDriver\").option(\"url\", "
           "\"jdbc:arrow-flight-sql://HOST:PORT?useEncryption=false&featureflight-timestamps=text\").option(\"query\", sql).load()`",
           "Spark refuses the driver's timestamps with a zone: as text they arrive whole, for `to_timestamp`. With the JDBC driver's jar in `spark.jars` and that option of the JVM in `spark.driver.extraJavaOptions` and `spark.executor.extraJavaOptions`. "
           "One task reads all endpoints of a result. Spark's `predicates` and `partitionColumn` make several tasks, each with a statement of its own: `featureflight-system-time` in the URL has them read the same state.",
           spark("spark_jdbc.py", jdbc_jar), heavy=True, because={
               "types": JDBC_TYPES,
               "rarer types": "Spark's `format(\"jdbc\")` has no interval, no duration, no map and no decimal beyond 38 digits, and reads a time of day as an instant of 1970: write `CAST(x AS VARCHAR)`, "
                              "`map_keys(x)` and `map_values(x)`.",
               "nested": "Spark's `format(\"jdbc\")` knows no nested types: select their fields, or write `CAST(x AS VARCHAR)`.",
               "cancel": "The job ends at once, the statement ten seconds later: Spark 4.3 closes the connection before it stops the task, and the JDBC driver waits five seconds, twice, for the stream to "
                         "end before it gives it up. `featureflight-query-timeout=5min` in the URL bounds every statement."}),
    Driver("spark-map-in-arrow", "PySpark, ADBC in `mapInArrow`", "a data frame of `cursor.adbc_execute_partitions(sql)`, a row and partition for each descriptor, and in the function "
           "`adbc_driver_flightsql.dbapi.connect(\"grpc://HOST:PORT\", autocommit=True)` and `cursor.adbc_read_partition(descriptor)`",
           "With the header `featureflight-endpoints` a result is read by so many tasks at once. Each task is a connection, so a session of its own. With `spark.python.task.killTimeout` at `500ms` a cancelled "
           "job's statement ends within two seconds; the default lets it compute for two more.", spark("spark_adbc.py", lambda: "map_in_arrow"), heavy=True, because={"rarer types": SPARK_RARER}),
    Driver("spark-source", "PySpark, data source over endpoints", "`spark.read.format(NAME)` with a Python data source whose partitions are `cursor.adbc_execute_partitions(sql)`, "
           "each read by `cursor.adbc_read_partition(descriptor)`",
           "With the header `featureflight-endpoints` a result is read by so many tasks at once. `spark.python.task.killTimeout` is as above.", spark("spark_adbc.py", lambda: "source"), heavy=True,
           because={"rarer types": SPARK_RARER}),
    Driver("go-adbc", "ADBC, Go", "`flightsql.NewDriver(memory.DefaultAllocator).NewDatabase(map[string]string{adbc.OptionKeyURI: \"grpc://HOST:PORT\"})`", "", go("adbc"), heavy=True),
    Driver("go-sql", "database/sql, Go", "`sql.Open(\"flightsql\", \"flightsql://USER:PASSWORD@HOST:PORT\")`, the driver of `arrow-go`",
           "Further properties behind a `?` are headers. It sends the user and password with every call and takes no token, so a session is the connection, and a lost "
           "connection loses what was `SET`: give clocks as headers. Version 18.5.2 may take an error in the middle of a result for its end: count the rows, or use ADBC.", go("sql"), heavy=True, because={
               "types": "The driver has no unsigned 64-bit integers and no dates, and hands decimals out as doubles: write `CAST(x AS VARCHAR)`.",
               "rarer types": "The driver has no interval, no map and no binary of a fixed size, hands a time of day out as an instant of 1970 and decimals as doubles: write `CAST(x AS VARCHAR)`, "
                              "`map_keys(x)` and `map_values(x)`, `arrow_cast(x, 'Binary')`.",
               "nested": "The driver has no nested types: select their fields, or write `CAST(x AS VARCHAR)`.",
               "parameters": "The driver binds no instants: write `CAST(? AS TIMESTAMP)` and bind text.",
               "decimal parameters": "The driver binds no decimals: write `CAST(CAST(? AS VARCHAR) AS DECIMAL(38, 10))` and bind text.",
               "rarer parameters": "The driver binds no dates and no binary: bind text, in `CAST(? AS DATE)` and `decode(?, 'hex')`.",
               "writes": "`INSERT` and `DELETE` work and are counted; no parameter can be an event time: write `CAST(? AS TIMESTAMP)` and bind text.",
               "reconnect": "It takes no token, so the session is the connection and what was `SET` is lost with it: give clocks as headers."}),
    Driver("node-lakehouse", "Node, @lakehouse-rs/flight-sql-client", "`createFlightSqlClient({ host: HOST, port: PORT, tls: false, headers: [], username: USER, password: PASSWORD })`", "",
           node("lakehouse"), heavy=True, because={
               "types": NODE_INSTANTS,
               "error": "The client says where it failed and drops what the server said: run the statement in the shell to read it.",
               "late error": "When a stream fails after it began, the client never answers: give each call a time limit."}),
    Driver("node-gizmodata", "Node, @gizmodata/gizmosql-client", "`new FlightSQLClient({ host: HOST, port: PORT, plaintext: true, username: USER, password: PASSWORD })`",
           "It fetches the first endpoint alone: leave `featureflight.endpoints` as it is.", node("gizmodata"), heavy=True, because={"types": NODE_INSTANTS}),
    Driver("flight-sql-client", "arrow-flight's flight_sql_client", "`flight_sql_client --host HOST --port PORT --username USER --password PASSWORD statement-query \"SELECT 1\"`",
           "A header is `flight_sql_client --header NAME=VALUE ...`; nulls print as nothing. Each call is a session of its own.", flight_sql_client, heavy=True, because={
               "features": "It prints a table for people, in which a line break within a text begins a new line.",
               "types": "It prints empty text and empty binary as it prints null: as nothing.",
               "rarer types": "It prints intervals in words and maps as a sketch, with nothing for their nulls: select their fields, `extract(day FROM x)` and `map_values(x)`.",
               "rarer parameters": "Parameters are texts on its command line, which a binary one is not: write `X'00ff'` into the statement.",
               "nested": "It prints nested values as a sketch without quotes, which no program reads back: select their fields."}),
    Driver("jupyterlab", "JupyterLab with JupySQL", "`%sql engine` in a cell, with `engine` made by SQLAlchemy as above", "Interrupting the kernel is the cancel.", jupyterlab, heavy=True, because={"browse": NO_TABLES}),
    Driver("superset", "Apache Superset", "`datafusion://USER:PASSWORD@HOST:PORT?insecure=True`, as the SQLAlchemy URI of a database of kind *Other*",
           "The dialect is the package `flightsql-dbapi`, since Superset keeps to SQLAlchemy 1.4 and `sqlalchemy-adbc` wants 2. It wants a user and password, any while the server asks for none; a "
           "header is `&NAME=VALUE`. Superset parses SQL before it sends it: "
           "put `SQLGLOT_DIALECTS_EXTENSIONS = {\"base\": sqlglot.Dialects.POSTGRES}` into `superset_config.py`, and for the grains of time `TIME_GRAIN_ADDON_EXPRESSIONS = "
           "{\"base\": {\"P1D\": \"date_trunc('day', {col})\", ...}}`. Of the spellings of a clock it lets `t AT (TIMESTAMP => x)` and `as_of('t', event_time => x)` through. "
           "Each run in SQL Lab is a session of its own: write `SET` or `CREATE TEMP VIEW` before the query and run both. "
           "It fetches `SQL_MAX_ROW` rows and shows `DISPLAY_MAX_ROW`; the limit of its menu replaces a query's own `LIMIT`. Leave `featureflight-endpoints` as it is: "
           "the dialect fetches the first endpoint alone, so a result without a limit would be a part.", superset, heavy=True, more=tuple(CHARTS), because={
               "features": "Superset sends rows to the browser as JSON, which has no infinity: it shows as null.",
               "types": "Rows go to the browser as JSON, which has no NaN and no infinity, and through pandas, which has no integers beyond 64 bits with sign and makes doubles of decimals; a date is shown with "
                        "its midnight, binary as `[bytes]`: write `CAST(x AS VARCHAR)`, and `encode(x, 'hex')` for binary.",
               "rarer types": "As above; intervals, durations and maps are shown as Python prints them: write `CAST(x AS VARCHAR)`, `map_keys(x)` and `map_values(x)`.",
               "nested": "Superset shows nested values as Python prints them: select their fields.",
               "endpoints": "SQL Lab puts a limit on every query, in place of the query's own, and a result with a limit has one endpoint.",
               "error": "Superset parses a statement before it sends it, and of a misspelt one tells the place, not the word.",
               "cancel": "Superset's stop asks the dialect, and this one has no cancel: `&featureflight-query-timeout=30s` in the URI bounds every query.",
               "clock by SQL": "Superset's parser knows no `FOR ... AS OF`: write `t AT (TIMESTAMP => x)` or `as_of('t', event_time => x)`."}),
]
