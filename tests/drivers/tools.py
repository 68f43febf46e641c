"""The drivers: how each is installed, started and named to its users.

Quick ones need what `tests/run` installs and run with the tests; heavy ones install themselves under the cache folder.
"""

import hashlib
import subprocess
import sys
from dataclasses import dataclass, field

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


def jdbc():
    return ["java", "--add-opens=java.base/java.nio=ALL-UNNAMED", "-cp", f"{maven('jdbc/pom.xml')}/*", str(HERE / "jdbc" / "Adapter.java")]


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
    # Checks that do not fit the driver, with the reason.
    skips: dict = field(default_factory=dict)


def python(script, *arguments):
    return lambda: [sys.executable, str(HERE / script), *arguments]


def adbc(reader):
    return python("python_adbc.py", reader)


ADBC = "`adbc_driver_flightsql.dbapi.connect(\"grpc://HOST:PORT\", autocommit=True)`"
DRIVERS = [
    Driver("adbc-pyarrow", "ADBC, Python: pyarrow", ADBC + ", then `cursor.fetch_arrow_table()`",
           "A user and password go into the second argument: `{\"username\": ..., \"password\": ...}`.", adbc("pyarrow")),
    Driver("adbc-pandas", "ADBC, Python: pandas", ADBC + ", then `pandas.read_sql(sql, connection, dtype_backend=\"pyarrow\")`",
           "Without `dtype_backend` integers with nulls become doubles and lose digits.", adbc("pandas")),
    Driver("adbc-polars", "ADBC, Python: polars", ADBC + ", then `polars.read_database(sql, connection)`", "", adbc("polars")),
    Driver("adbc-duckdb", "ADBC, Python: DuckDB", ADBC + ", then `stream = cursor.fetch_record_batch()` and `duckdb.sql(\"SELECT * FROM stream\")`",
           "DuckDB reads the stream as it arrives.", adbc("duckdb")),
    Driver("sqlalchemy", "SQLAlchemy", "`sqlalchemy.create_engine(\"adbc+flightsql://HOST:PORT?tls=false&username=USER&password=PASSWORD\")`",
           "The dialect is the package `sqlalchemy-adbc`. It takes `user:password@` for a bearer token, so both go behind the `?`; a header is "
           "`&header.NAME=VALUE`.", python("python_sqlalchemy.py")),
    Driver("jupysql", "JupySQL", "`%sql engine`, with `engine` made by SQLAlchemy as above", "", python("python_jupysql.py")),
    Driver("jdbc", "Arrow Flight SQL JDBC", "`jdbc:arrow-flight-sql://HOST:PORT?useEncryption=false&user=USER&password=PASSWORD`",
           "The driver of DBeaver, Tableau (JDBC) and Databricks: `org.apache.arrow:flight-sql-jdbc-driver` of Maven. Java 17 needs "
           "`--add-opens=java.base/java.nio=ALL-UNNAMED`. Further properties of the URL are headers: `&featureflight-valid-time=2026-01-02`.", jdbc),
]
