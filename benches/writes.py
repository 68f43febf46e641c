#!/usr/bin/env python3
"""Measures writing: rows into the outbox, the wait for an acknowledgement, what rows that wait cost a query, and records on to
the online store beside boto3 threads that do what the SageMaker SDK's `ingest` does, against one endpoint.

Every measurement has a fresh server on a fresh warehouse, and clients in processes of their own; all of them share the machine.
Rows are counted where they end, and a run that lost or doubled one fails. Speed is never judged. `benches/run writes` sets up
what this needs.
"""
import argparse
import concurrent.futures
import contextlib
import datetime as dt
import http.client
import json
import multiprocessing
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import adbc_driver_flightsql.dbapi as flightsql
import boto3
import botocore.config
import pyarrow as pa
from prometheus_client.openmetrics.parser import text_string_to_metric_families

ACCOUNT, REGION = "123456789012", "eu-west-1"
KEYS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_REGION": REGION, "AWS_EC2_METADATA_DISABLED": "true"}
EPOCH = dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)
TICKS = os.sysconf("SC_CLK_TCK")


def arguments(given=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--case", action="append", choices=CASES, help="repeatable; default: all")
    p.add_argument("--scale", type=float, default=1.0, help="0.01 writes a hundredth of the rows")
    p.add_argument("--dir", type=pathlib.Path, help="where warehouses are made: on the disk to measure")
    return p.parse_args(given)


def describe(folder, features):
    """A feature group `g`: an identifier, a time, a text and as many numbers as make `features`."""
    numbers = [f"f{i}" for i in range(features - 3)]
    types = {"id": "String", "at": "String", "label": "String"} | dict.fromkeys(numbers, "Fractional")
    root = f"s3://offline/{ACCOUNT}/sagemaker/{REGION}/offline-store/g-1700000000/data"
    description = {
        "FeatureGroupArn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:feature-group/g", "FeatureGroupName": "g",
        "RecordIdentifierFeatureName": "id", "EventTimeFeatureName": "at", "CreationTime": 1700000000,
        "FeatureDefinitions": [{"FeatureName": n, "FeatureType": t} for n, t in types.items()],
        "OnlineStoreConfig": {"EnableOnlineStore": True}, "FeatureGroupStatus": "Created",
        "OfflineStoreConfig": {
            "S3StorageConfig": {"S3Uri": "s3://offline", "ResolvedOutputS3Uri": root},
            "DataCatalogConfig": {"TableName": "g_1700000000", "Catalog": "AwsDataCatalog", "Database": "sagemaker_featurestore"}},
    }
    (folder / "feature-groups").mkdir(parents=True)
    (folder / "s3").mkdir()
    (folder / "feature-groups" / "g.json").write_text(json.dumps(description))


def rows(count, features, first=0):
    numbers = pa.array([i * 0.37 for i in range(first, first + count)])
    at = pa.array([(EPOCH + dt.timedelta(seconds=i % 3600)).strftime("%Y-%m-%dT%H:%M:%SZ") for i in range(count)])
    columns = {"id": pa.array([f"c-{i:09d}" for i in range(first, first + count)]), "at": at,
               "label": pa.array(["gold", "silver", "iron"] * (count // 3 + 1)).slice(0, count)}
    table = pa.table(columns | {f"f{i}": numbers for i in range(features - 3)})
    # The driver sends no message of more than 16 MiB.
    return pa.Table.from_batches(table.to_batches(max_chunksize=500_000 // features))


class Process:
    """A process that says its addresses."""

    def __init__(self, command, wanted, env=None):
        self.process = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                        env=os.environ | (env or {}))
        self.found, lines = [], []
        for pattern in wanted:
            for line in self.process.stdout:
                lines.append(line)
                if found := re.search(pattern, line):
                    self.found.append(found.group(1))
                    break
            else:
                raise RuntimeError("".join(lines))
        threading.Thread(target=lambda: [None for _ in self.process.stdout], daemon=True).start()

    def processor_seconds(self):
        return processor_seconds(self.process.pid)

    def stop(self):
        self.process.terminate()
        self.process.wait(120)


def processor_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Server(Process):
    def __init__(self, *options, env=None):
        command = [os.environ["FEATUREFLIGHT_BIN"], "serve", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", *options]
        super().__init__(command, [r"health on http://(\S+)", r"listening on (grpc://\S+)"], env)
        self.http, self.uri = self.found

    def metrics(self):
        connection = http.client.HTTPConnection(self.http, timeout=60)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
        return {(s.name.removeprefix("featureflight_"), *s.labels.values()): s.value for s in samples}

    def connect(self):
        return flightsql.connect(self.uri, autocommit=True)


@contextlib.contextmanager
def owned(options, features, **env):
    """A server that owns a warehouse with the group. Nothing is flushed, so that all that is measured is the outbox."""
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        folder = pathlib.Path(folder)
        describe(folder / "warehouse", features)
        env = {"FEATUREFLIGHT__OFFLINE__MAX_AGE": "1d", "FEATUREFLIGHT__OFFLINE__MAX_SIZE": "64GiB"} | env
        server = Server("--warehouse", folder / "warehouse", "--own", env=env)
        try:
            yield server
        finally:
            server.process.kill()
            server.process.wait()


def client(uri, features, count, size, first, start):
    table = rows(min(size, count), features, first)
    with flightsql.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:
        start.wait()
        for _ in range(max(1, count // size)):
            cursor.adbc_ingest("g", table, mode="append")


def upload(server, clients, features, count, size):
    """Seconds that `clients` take to write `count` rows, in requests of `size` rows."""
    start = multiprocessing.Barrier(clients + 1)
    each = count // clients
    writers = [multiprocessing.Process(target=client, args=(server.uri, features, each, size, i * each, start)) for i in range(clients)]
    for writer in writers:
        writer.start()
    start.wait()
    began = time.perf_counter()
    for writer in writers:
        writer.join()
        if writer.exitcode:
            raise RuntimeError("a client failed")
    return time.perf_counter() - began


def durable(options):
    print("\n## Durable rows in\n\n| features | clients | rows per request | rows per second | MB per second | processor, µs per row |")
    print("|--:|--:|--:|--:|--:|--:|")
    for features, total, size in ((10, 2_000_000, 50_000), (500, 40_000, 1_000)):
        for clients in (1, 8):
            size_here = max(1, int(min(size, total * options.scale / clients)))
            count = int(total * options.scale) // (size_here * clients) * size_here * clients
            with owned(options, features) as server:
                before = server.processor_seconds()
                seconds = upload(server, clients, features, count, size_here)
                spent = server.processor_seconds() - before
                accepted = server.metrics()["write_rows_acknowledged_total",]
                check(accepted == count, f"{accepted} of {count} rows were acknowledged")
                size_mb = rows(1000, features).nbytes / 1000 * count / 1e6
                print(f"| {features} | {clients} | {size_here:,} | {count / seconds:,.0f} | {size_mb / seconds:,.0f} "
                      f"| {spent / count * 1e6:.1f} |", flush=True)


def latencies(uri, features, count, first, start):
    table = rows(1, features, first)
    found = []
    with flightsql.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:
        start.wait()
        for _ in range(count):
            began = time.perf_counter()
            cursor.adbc_ingest("g", table, mode="append")
            found.append(time.perf_counter() - began)
    return found


def acknowledgement(options):
    print("\n## Acknowledgement of one row, as an ADBC client sees it\n\n| clients | p50, ms | p99, ms | requests per second | fsyncs per request |")
    print("|--:|--:|--:|--:|--:|")
    for clients, each in ((1, 2_000), (8, 500)):
        each = max(10, int(each * options.scale))
        with owned(options, 10) as server, multiprocessing.Manager() as manager, \
                concurrent.futures.ProcessPoolExecutor(clients) as pool:
            start = manager.Barrier(clients)
            began = time.perf_counter()
            futures = [pool.submit(latencies, server.uri, 10, each, i, start) for i in range(clients)]
            found = sorted(seconds for future in futures for seconds in future.result())
            seconds = time.perf_counter() - began
            metrics = server.metrics()
            check(metrics["write_rows_acknowledged_total",] == len(found), "rows are missing")
            fsyncs = metrics["outbox_fsync_duration_seconds_count",] / len(found)
            print(f"| {clients} | {statistics.median(found) * 1e3:.2f} | {found[int(len(found) * 0.99)] * 1e3:.2f} "
                  f"| {len(found) / seconds:,.0f} | {fsyncs:.2f} |", flush=True)


def settled(folder, count):
    """A warehouse of `count` records that are in files."""
    describe(folder, 10)
    server = Server("--warehouse", folder, "--own", env={"FEATUREFLIGHT__OFFLINE__MAX_AGE": "1s"})
    try:
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.adbc_ingest("g", rows(count, 10), mode="append")
            began = time.perf_counter()
            while server.metrics()["outbox_waiting_rows", "offline"]:
                check(time.perf_counter() - began < 600, "rows are in no file")
                time.sleep(0.2)
    finally:
        server.stop()


@contextlib.contextmanager
def of_warehouse(warehouse, folder):
    """A server that owns the warehouse and writes no further file."""
    env = {"FEATUREFLIGHT__OFFLINE__MAX_AGE": "1d", "FEATUREFLIGHT__OFFLINE__MAX_SIZE": "64GiB"}
    server = Server("--warehouse", warehouse, "--own", env=env)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()


@contextlib.contextmanager
def of_sagemaker(warehouse, folder):
    """A server before SageMaker: the files are in its bucket, and the runtime takes every record and writes none of them."""
    bench = os.environ["FEATUREFLIGHT_BENCH"]
    bucket = Process([bench, "slow-s3", "--root", warehouse / "s3", "--latency-ms", "0"], [r"listening on (\S+)"])
    runtime = Process([bench, "online-service"], [r"listening on (\S+)"])
    env = KEYS | {
        "AWS_ENDPOINT_URL_S3": bucket.found[0], "AWS_ENDPOINT_URL": runtime.found[0],
        "FEATUREFLIGHT__CATALOG__KIND": "files", "FEATUREFLIGHT__CATALOG__DIRECTORY": str(warehouse),
        "FEATUREFLIGHT__STORAGE__KIND": "aws", "FEATUREFLIGHT__OUTBOX__DIRECTORY": str(folder / "outbox-of-sagemaker"),
    }
    server = Server(env=env)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()
        bucket.stop()
        runtime.stop()


BESIDE = {
    "one record": "SELECT count(*), count(label) FROM g WHERE id = 'c-000000007'",
    "the state": "SELECT count(*), count(f0) FROM g",
    "a point-in-time join": "SELECT count(*), count(label) FROM point_in_time_join((SELECT id, ts FROM spine), 'g:label')",
}


def took(cursor, sql):
    """Median of nine runs in milliseconds, and the answer."""
    seconds = []
    for _ in range(9):
        began = time.perf_counter()
        cursor.execute(sql)
        answer, = cursor.fetchall()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds) * 1e3, answer


def fresh(options):
    """The same statements while more and more rows wait for their first file, and without them."""
    there, wanted = int(1_000_000 * options.scale), int(10_000 * options.scale)
    print(f"\n## Queries beside rows that wait\n\n{there:,} records in files; milliseconds, in brackets with fresh = false; the join has {wanted:,} rows\n")
    print(f"| group of | waiting rows | {' | '.join(BESIDE)} | peak memory, MB |\n|---|--:|{'--:|' * len(BESIDE)}--:|")
    spine = pa.table({"id": [f"c-{i:09d}" for i in range(wanted)], "ts": [EPOCH + dt.timedelta(hours=2)] * wanted})
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        folder = pathlib.Path(folder)
        warehouse = folder / "warehouse"
        settled(warehouse, there)
        for group, serving in (("a warehouse", of_warehouse), ("SageMaker", of_sagemaker)):
            with serving(warehouse, folder) as server, server.connect() as connection, connection.cursor() as cursor:
                cursor.adbc_ingest("spine", spine, mode="create", temporary=True)
                waiting = 0
                for target in (0, 10_000, 1_000_000):
                    target = int(target * options.scale)
                    if target > waiting:
                        cursor.adbc_ingest("g", rows(target - waiting, 10, there + waiting), mode="append")
                        waiting = target
                    cells = []
                    for name, sql in BESIDE.items():
                        beside, answer = took(cursor, sql)
                        cursor.execute("SET featureflight.fresh = false")
                        alone, files_only = took(cursor, sql)
                        cursor.execute("RESET featureflight.fresh")
                        expected = {"one record": (1, 1), "a point-in-time join": (wanted, wanted)}.get(name)
                        check(answer == (expected or (there + waiting,) * 2), f"{name}: {answer} beside {waiting} waiting rows")
                        check(files_only == (expected or (there,) * 2), f"{name}: {files_only} in files")
                        cells.append(f"{beside:.1f} ({alone:.1f})")
                    status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
                    peak = int(re.search(r"VmHWM:\s+(\d+)", status).group(1)) // 1024
                    print(f"| {group} | {waiting:,} | {' | '.join(cells)} | {peak} |", flush=True)


def put_records(endpoint, records, threads):
    """What the SDK's `ingest` does in one of its processes: a PutRecord per row, from threads; its processor seconds."""
    config = botocore.config.Config(retries={"max_attempts": 10, "mode": "standard"}, max_pool_connections=threads)
    runtime = boto3.client("sagemaker-featurestore-runtime", endpoint_url=endpoint, region_name=REGION, config=config)

    def put(some):
        for record in some:
            values = [{"FeatureName": n, "ValueAsString": str(v)} for n, v in record.items() if v is not None]
            runtime.put_record(FeatureGroupName="g", Record=values)

    before = processor_seconds(os.getpid())
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        list(pool.map(put, [records[i::threads] for i in range(threads)]))
    return processor_seconds(os.getpid()) - before


def with_boto3(endpoint, count, processes, threads):
    """Records per second, and processor seconds per record."""
    records = rows(count, 10).to_pylist()
    environment = os.environ | KEYS
    os.environ.update(KEYS)
    try:
        with concurrent.futures.ProcessPoolExecutor(processes) as pool:
            list(pool.map(abs, range(processes)))
            began = time.perf_counter()
            futures = [pool.submit(put_records, endpoint, records[i::processes], threads) for i in range(processes)]
            spent = sum(future.result() for future in futures)
            return count / (time.perf_counter() - began), spent / count
    finally:
        os.environ.clear()
        os.environ.update(environment)


def with_ours(options, endpoint, count):
    """The same for a server that receives the rows in one upload, makes them durable and forwards them."""
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        folder = pathlib.Path(folder)
        describe(folder / "catalog", 10)
        env = KEYS | {
            "AWS_ENDPOINT_URL": endpoint,
            "FEATUREFLIGHT__CATALOG__KIND": "files", "FEATUREFLIGHT__CATALOG__DIRECTORY": str(folder / "catalog"),
            "FEATUREFLIGHT__STORAGE__KIND": "aws", "FEATUREFLIGHT__OUTBOX__DIRECTORY": str(folder / "outbox"),
        }
        server = Server(env=env)
        try:
            table = rows(count, 10)
            with server.connect() as connection, connection.cursor() as cursor:
                before, began = server.processor_seconds(), time.perf_counter()
                cursor.adbc_ingest("g", table, mode="append")
                acknowledged = time.perf_counter() - began
                while (sent := server.metrics().get(("store_records_sent_total", "sagemaker"), 0)) < count:
                    check(time.perf_counter() - began < 600, f"{sent} of {count} records were sent")
                    time.sleep(0.02)
                seconds = time.perf_counter() - began
            check(sent == count, f"{sent} records were sent for {count} rows")
            return count / seconds, (server.processor_seconds() - before) / count, acknowledged
        finally:
            server.process.kill()
            server.process.wait()


def forwarding(options):
    print("\n## Records to the online store\n\n| | records per second | processor, µs per record | of the endpoint |\n|---|--:|--:|--:|")
    service = Process([os.environ["FEATUREFLIGHT_BENCH"], "online-service"], [r"listening on (\S+)"])
    endpoint, = service.found
    try:
        def measured(count, run):
            before = service.processor_seconds()
            figures = run(count)
            return figures, (service.processor_seconds() - before) / count * 1e6
        boto = []
        for processes, threads in ((1, 8), (2, 8)):
            count = max(200, int(10_000 * options.scale))
            figures, of_service = measured(count, lambda count: with_boto3(endpoint, count, processes, threads))
            boto.append(figures)
            print(f"| boto3, {processes} process(es) of {threads} threads | {figures[0]:,.0f} | {figures[1] * 1e6:,.0f} | {of_service:.0f} |", flush=True)
        count = max(2_000, int(300_000 * options.scale))
        figures, of_service = measured(count, lambda count: with_ours(options, endpoint, count))
        print(f"| ours, acknowledged after {figures[2]:.2f} s | {figures[0]:,.0f} | {figures[1] * 1e6:.1f} | {of_service:.1f} |")
        print(f"\n{figures[0] / max(rate for rate, _ in boto):.1f} times the records per second, "
              f"{min(spent for _, spent in boto) / figures[1]:.0f} times fewer processor seconds per record")
    finally:
        service.stop()


def check(holds, why):
    if not holds:
        raise SystemExit(f"writes: {why}")


CASES = {"durable": durable, "acknowledgement": acknowledgement, "fresh": fresh, "forwarding": forwarding}


if __name__ == "__main__":
    chosen = arguments()
    for name, case in CASES.items():
        if not chosen.case or name in chosen.case:
            case(chosen)
    sys.exit(0)
