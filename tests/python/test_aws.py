"""`serve --aws` against running stand-ins over HTTP: moto for S3 and Glue, the tests' own fake for
the SageMaker control plane (moto lacks most of it): discovery, data, a new group, a new file, throttling,
an S3 that goes away.
"""

import io
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request

import adbc_driver_manager
import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import serving
from sagemaker_layout import description, objects

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "eu-west-1",
    "AWS_EC2_METADATA_DISABLED": "true"}
BUCKET = "offline"
FEATURES = {"CustomerId": "String", "EventTime": "String", "Age": "Integral", "Spend": "Fractional"}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def moto(port):
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(100):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/data.json", timeout=1)
            return process
        except OSError:
            time.sleep(0.1)
    process.kill()
    raise RuntimeError("moto did not start")


class SageMaker:
    """The fake control plane; it prints its address and is steered over HTTP."""

    def __init__(self):
        path = os.path.join(os.environ["FEATUREFLIGHT_TEST_TOOLS"], "fake-aws")
        self.process = subprocess.Popen([path], stdout=subprocess.PIPE, text=True)
        self.url = re.search(r"http://\S+", self.process.stdout.readline()).group(0)

    def steer(self, what, body):
        request = urllib.request.Request(
            f"{self.url}/steer/{what}", json.dumps(body).encode(), {"content-type": "application/json"})
        return urllib.request.urlopen(request, timeout=10).read()


class Cloud:
    def __init__(self):
        self.port = free_port()
        self.moto = moto(self.port)
        self.sagemaker = SageMaker()
        url = f"http://127.0.0.1:{self.port}"
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "eu-west-1"}
        self.s3 = boto3.client("s3", endpoint_url=url, **keys)
        self.glue = boto3.client("glue", endpoint_url=url, **keys)
        self.s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        self.glue.create_database(DatabaseInput={"Name": "sagemaker_featurestore"})
        self.environment = {
            **CREDENTIALS, "AWS_ENDPOINT_URL_S3": url, "AWS_ENDPOINT_URL_GLUE": url,
            "AWS_ENDPOINT_URL_SAGEMAKER": self.sagemaker.url,
            "FEATUREFLIGHT__CATALOG__REFRESH": "1s", "FEATUREFLIGHT__ENGINE__LIST_CACHE_TTL": "0s"}

    def put(self, group, rows):
        for key, table in objects(group, rows):
            body = io.BytesIO()
            pq.write_table(table, body)
            self.s3.put_object(Bucket=BUCKET, Key=key, Body=body.getvalue())

    def add(self, group, rows):
        self.put(group, rows)
        hive = {"String": "string", "Integral": "bigint", "Fractional": "double"}
        columns = [{"Name": d["FeatureName"].lower(), "Type": hive[d["FeatureType"]]} for d in group["FeatureDefinitions"]]
        columns += [{"Name": "write_time", "Type": "timestamp"}, {"Name": "api_invocation_time", "Type": "timestamp"},
                    {"Name": "is_deleted", "Type": "boolean"}]
        offline = group["OfflineStoreConfig"]
        self.table(offline["DataCatalogConfig"]["TableName"], columns, offline["S3StorageConfig"]["ResolvedOutputS3Uri"])
        self.sagemaker.steer("groups", group)

    def table(self, name, columns, location):
        self.glue.create_table(DatabaseName="sagemaker_featurestore", TableInput={
            "Name": name, "TableType": "EXTERNAL_TABLE",
            "StorageDescriptor": {
                "Columns": columns, "Location": location,
                "InputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
                "SerdeInfo": {"SerializationLibrary": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"}}})

    def stop(self):
        for process in (self.moto, self.sagemaker.process):
            process.terminate()
            process.wait()
        self.sagemaker.process.stdout.close()


def versions(rows):
    names = list(FEATURES)
    return pa.table({n: [r[i] for r in rows] for i, n in enumerate(names)})


def eventually(check, seconds=20):
    deadline = time.monotonic() + seconds
    while True:
        try:
            return check()
        except (AssertionError, adbc_driver_manager.Error):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)


@pytest.fixture()
def cloud():
    cloud = Cloud()
    yield cloud
    cloud.stop()


def test_serve_aws(cloud):
    group = description("customers", "CustomerId", "EventTime", FEATURES)
    group["OfflineStoreConfig"]["DataCatalogConfig"]["Database"] = "SageMaker_FeatureStore"
    cloud.add(group, versions([
        ("a", "2026-01-01T00:00:00Z", 30, 1.5), ("b", "2026-01-01T05:00:00Z", 40, None),
        ("a", "2026-01-02T00:00:00.500Z", 31, 2.5)]))
    cloud.table("left_behind", [{"Name": "customerid", "Type": "string"}],
                group["OfflineStoreConfig"]["S3StorageConfig"]["ResolvedOutputS3Uri"])
    with serving("--aws", env=cloud.environment) as server:
        rows = "SELECT customerid, age, spend FROM customers ORDER BY 1"
        assert server.rows(rows) == [("a", 31, 2.5), ("b", 40, None)]
        assert server.rows("SELECT count(*), max(eventtime) FROM sagemaker_featurestore.customers_1700000000") == [
            (3, "2026-01-02T00:00:00.500Z")]
        assert server.rows("SELECT count(*) FROM sagemaker_featurestore.left_behind") == [(3,)]
        assert server.rows("SELECT spend FROM customers FOR VALID_TIME AS OF '2026-01-01T12:00:00Z' WHERE customerid = 'a'") == [(1.5,)]

        # A new file, a new feature and a new group show up without a restart.
        cloud.put(group, versions([("c", "2026-01-03T00:00:00Z", 50, 0.0)]))
        assert server.rows("SELECT age FROM customers WHERE customerid = 'c'") == [(50,)]
        other = description("devices", "CustomerId", "EventTime", FEATURES)
        cloud.add(other, versions([("d", "2026-01-03T00:00:00Z", 1, 1.0)]))
        eventually(lambda: server.rows("SELECT customerid FROM devices") == [("d",)] or pytest.fail())
        group["FeatureDefinitions"].append({"FeatureName": "Tier", "FeatureType": "String"})
        cloud.sagemaker.steer("groups", group)
        eventually(lambda: server.rows("SELECT count(*), count(tier) FROM customers"))
        assert server.rows("SELECT count(*), count(tier) FROM customers") == [(3, 0)]

        # Throttled for long: the last good catalog is served and says so; then it recovers.
        error = "SELECT count(DISTINCT last_refresh_error) FROM system.feature_groups"

        def errors(expected):
            assert server.rows(error) == [(expected,)]

        cloud.sagemaker.steer("throttle", {"calls": 1_000_000})
        eventually(lambda: errors(1), 60)
        assert server.rows(rows)[0] == ("a", 31, 2.5)
        cloud.sagemaker.steer("throttle", {"calls": 0})
        eventually(lambda: errors(0), 60)

        # S3 away: an error that says so, never a shorter answer.
        cloud.moto.terminate()
        cloud.moto.wait()
        with pytest.raises(adbc_driver_manager.Error) as raised:
            server.rows("SELECT count(*) FROM customers")
        assert "UNAVAILABLE" in str(raised.value).upper()


def test_no_rights_says_what_to_do(cloud):
    cloud.sagemaker.steer("deny", {"denied": True})
    with pytest.raises(RuntimeError) as raised:
        with serving("--aws", env=cloud.environment):
            pass
    assert "sagemaker" in str(raised.value).lower() and "denied" in str(raised.value).lower()
