"""What benches/run measures: the data sets, and the cases over them.

Everything shrinks with `scale`: hours and rows per hour with its square root, keys and spines with itself. The cut-off for the
rows of small and large spines stays such that they are small and large.
"""
import dataclasses
import json
import math
import pathlib
import shutil

import numpy
import pyarrow as pa

import make_history

JOIN_PEERS = ("duckdb", "polars", "chdb")


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    title: str
    sql: str
    kind: str = "join"  # or state, wire, latency
    data: str = "default"
    spine: str = "spine"
    groups: tuple = ("customers",)
    max_age_days: int | None = None
    keys: str | None = None
    peers: tuple = JOIN_PEERS
    memory_limit_mb: int | None = None
    s3: bool = False
    floor: bool = True
    matched: str = "visits"
    upload: str | None = None  # the columns of a table that is uploaded: doubles or text


JOIN = "SELECT * FROM point_in_time_join(TABLE(bench.{spine}), 'customers')"

CASES = [
    Case("default", "point-in-time join", JOIN, peers=(*JOIN_PEERS, "aws_sql")),
    Case("fractional", "Fractional event time", JOIN, data="fractional"),
    Case("skewed", "skewed keys", JOIN, data="skewed"),
    Case("files", "20 files per hour", JOIN, data="files"),
    Case("small-spine", "a spine of 1,000 rows", JOIN, spine="small"),
    Case("large-spine", "a spine of 10 million rows, 512 MB of memory", JOIN, spine="large", memory_limit_mb=512),
    Case("max-age", "max_age of one day, a spine on the last day", spine="last_day", max_age_days=1,
         sql="SELECT * FROM point_in_time_join(TABLE(bench.{spine}), 'customers', max_age => INTERVAL '1 day')"),
    Case("three-groups", "three groups in one join", data="groups", groups=("customers", "orders", "devices"),
         sql="SELECT * FROM point_in_time_join(TABLE(bench.{spine}), 'customers', 'orders', 'devices', full_feature_names => true)",
         matched="customers__visits"),
    Case("state", "state now", "SELECT * FROM features.customers", kind="state", peers=("duckdb_state",)),
    Case("lookup", "state of 10,000 keys, by a semi join", kind="state", keys="lookup", peers=("duckdb_state",),
         sql="SELECT * FROM features.customers WHERE customer_id IN (SELECT customer_id FROM bench.lookup)"),
    Case("lookup-in", "state of 10,000 keys, by a list", kind="state", keys="lookup", peers=("duckdb_state",),
         sql="SELECT * FROM features.customers WHERE customer_id IN ({keys})"),
    Case("s3", "point-in-time join over S3, 20 ms per request", JOIN, s3=True, floor=False),
    Case("wire-doubles", "20 doubles over Flight SQL, from memory", "SELECT * FROM uploaded", kind="wire", upload="doubles"),
    Case("wire-text", "20 wide text columns over Flight SQL, from memory", "SELECT * FROM uploaded", kind="wire", upload="text"),
    Case("wire-table", "a raw table over Flight SQL", "SELECT * FROM bench.{spine}", kind="wire"),
    Case("latency", "from a new connection to the last row of one record's state", kind="latency",
         sql="SELECT * FROM features.customers WHERE customer_id = '{key}'"),
]


@dataclasses.dataclass(frozen=True)
class Data:
    """One history and its spines, in a folder of its own."""
    groups: tuple = ("customers",)
    event_time: str = "string"
    skew: float = 1.0
    files_per_hour: int = 1
    extra_spines: bool = False

    def shape(self, scale):
        side = math.sqrt(scale)
        hours = max(48, round(720 * side))
        return {
            "hours": hours, "entities": max(100, round(200_000 * scale)), "skew": self.skew, "event_time": self.event_time,
            "files_per_hour": self.files_per_hour, "rows_per_hour": max(200, round(28_000 * side)) // len(self.groups),
            "groups": self.groups, "spine_rows": round(1_000_000 * scale), "spine_days": max(1, hours * 27 // 720),
            "extra_spines": self.extra_spines,
        }


DATA = {
    "default": Data(extra_spines=True),
    "fractional": Data(event_time="fractional"),
    "skewed": Data(skew=3.0),
    "files": Data(files_per_hour=20),
    "groups": Data(groups=("customers", "orders", "devices")),
}


def make(directory, name, scale):
    """The folder of a data set, made if it is missing or was made otherwise."""
    shape = DATA[name].shape(scale)
    folder = pathlib.Path(directory) / name
    made, wanted = folder / "made.json", json.dumps(shape)
    if made.exists() and made.read_text() == wanted:
        return folder
    if made.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    made.write_text("being made")
    common = {key: shape[key] for key in ("hours", "entities", "skew")}
    for salt, group in enumerate(shape["groups"]):
        make_history.history(folder, group, rows_per_hour=shape["rows_per_hour"], files_per_hour=shape["files_per_hour"],
                             event_time=shape["event_time"], salt=salt, **common)
    rows, days = shape["spine_rows"], shape["spine_days"]
    make_history.spine(folder, rows=rows, days=days, **common)
    if shape["extra_spines"]:
        make_history.spine(folder, "small", rows=min(rows, 1_000), days=days, **common)
        make_history.spine(folder, "large", rows=rows * 10, days=days, **common)
        make_history.spine(folder, "last_day", rows=max(100, rows // 10), days=1, **common)
        make_history.keys(folder, rows=max(10, round(10_000 * scale)), entities=shape["entities"])
    made.write_text(wanted)
    return folder


def uploaded(directory, columns, scale):
    """The Arrow file of a table of 20 columns, made if it is missing."""
    file = pathlib.Path(directory) / f"{columns}-{scale:g}.arrow"
    if not file.exists():
        random, rows = numpy.random.default_rng(1), round({"doubles": 1_000_000, "text": 200_000}[columns] * scale)
        make = {"doubles": lambda: pa.array(random.random(rows)),
                "text": lambda: pa.array([random.bytes(20).hex() for _ in range(rows)])}[columns]
        table = pa.table({f"c{number}": make() for number in range(20)})
        with pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=8192)
    return file


def raw(folder, name):
    """The file of a spine or a list of keys."""
    return pathlib.Path(folder) / "warehouse" / "s3" / "bench" / name / f"{name}.parquet"


def history_folders(folder, groups):
    root = pathlib.Path(folder) / "warehouse" / "s3"
    return [next(root.glob(f"*/sagemaker/*/offline-store/{group}-*/data")) for group in groups]
