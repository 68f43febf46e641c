"""Stand-ins for AWS, over HTTP: moto for S3 and Glue, the tests' own fakes for SageMaker's control plane (moto lacks most of
it) and its runtime."""

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
import pyarrow.parquet as pq
from sagemaker_layout import objects

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "eu-west-1",
    "AWS_EC2_METADATA_DISABLED": "true"}
BUCKET = "offline"


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
    """The fake control plane and the fake runtime; the process prints their addresses, and they are steered over HTTP."""

    def __init__(self):
        path = os.path.join(os.environ["FEATUREFLIGHT_TEST_TOOLS"], "fake-aws")
        self.process = subprocess.Popen([path], stdout=subprocess.PIPE, text=True)
        self.url, self.runtime = (re.search(r"http://\S+", self.process.stdout.readline()).group(0) for _ in range(2))

    def steer(self, what, body):
        return steer(self.url, what, body)

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()


def steer(url, what, body=None):
    request = urllib.request.Request(f"{url}/steer/{what}", json.dumps(body).encode(), {"content-type": "application/json"})
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
            "AWS_ENDPOINT_URL_SAGEMAKER_FEATURESTORE_RUNTIME": self.sagemaker.runtime,
            "FEATUREFLIGHT__CATALOG__REFRESH": "1s", "FEATUREFLIGHT__ENGINE__LIST_CACHE_TTL": "0s"}

    def put(self, group, rows):
        for key, table in objects(group, rows):
            body = io.BytesIO()
            pq.write_table(table, body)
            self.put_object(key, body.getvalue())

    def put_object(self, key, body):
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=body)

    def add(self, group, rows):
        self.put(group, rows)
        hive = {"String": "string", "Integral": "bigint", "Fractional": "double"}
        columns = [{"Name": d["FeatureName"].lower(), "Type": hive[d["FeatureType"]]} for d in group["FeatureDefinitions"]]
        columns += [{"Name": "write_time", "Type": "timestamp"}, {"Name": "api_invocation_time", "Type": "timestamp"},
                    {"Name": "is_deleted", "Type": "boolean"}]
        offline = group["OfflineStoreConfig"]
        self.table(offline["DataCatalogConfig"]["TableName"], columns, offline["S3StorageConfig"]["ResolvedOutputS3Uri"])
        self.sagemaker.steer("groups", group)
        steer(self.sagemaker.runtime, "groups", group)

    def table(self, name, columns, location):
        self.glue.create_table(DatabaseName="sagemaker_featurestore", TableInput={
            "Name": name, "TableType": "EXTERNAL_TABLE",
            "StorageDescriptor": {
                "Columns": columns, "Location": location,
                "InputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
                "SerdeInfo": {"SerializationLibrary": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"}}})

    def stop(self):
        self.moto.terminate()
        self.moto.wait()
        self.sagemaker.stop()


def eventually(check, seconds=20):
    deadline = time.monotonic() + seconds
    while True:
        try:
            return check()
        except (AssertionError, adbc_driver_manager.Error):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)
