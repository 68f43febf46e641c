"""Writes feature groups in the SageMaker offline-store layout with pyarrow alone.

Shares no code with the scanner under test: hour folders by event time (UTC), service-like file
names, features in definition order, then write_time, api_invocation_time and is_deleted.
"""

import datetime as dt
import json
import pathlib

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

ACCOUNT, REGION, EPOCH = "123456789012", "eu-west-1", 1700000000
ARROW = {"String": pa.string(), "Integral": pa.int64(), "Fractional": pa.float64()}


def description(name, record_identifier, event_time, features, bucket="offline", **more):
    """A DescribeFeatureGroup response; `features` maps names to types, in order."""
    root = f"{ACCOUNT}/sagemaker/{REGION}/offline-store/{name}-{EPOCH}"
    return {
        "FeatureGroupArn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:feature-group/{name}",
        "FeatureGroupName": name,
        "RecordIdentifierFeatureName": record_identifier,
        "EventTimeFeatureName": event_time,
        "FeatureDefinitions": [{"FeatureName": n, "FeatureType": t} for n, t in features.items()],
        "CreationTime": EPOCH,
        "OfflineStoreConfig": {
            "S3StorageConfig": {
                "S3Uri": f"s3://{bucket}",
                "ResolvedOutputS3Uri": f"s3://{bucket}/{root}/data",
            },
            "DataCatalogConfig": {
                "TableName": f"{name.replace('-', '_')}_{EPOCH}",
                "Catalog": "AwsDataCatalog",
                "Database": "sagemaker_featurestore",
            },
        },
        "FeatureGroupStatus": "Created",
        "OfflineStoreStatus": {"Status": "Active"},
        **more,
    }


def objects(group, rows):
    """Yields (key, table) per hour folder. `rows` is a table of the features and, where given,
    the system columns; instants of the event time decide the folder."""
    count = rows.num_rows
    event = rows[group["EventTimeFeatureName"]]
    if pa.types.is_floating(event.type):
        seconds = event.to_pylist()
    else:
        seconds = [dt.datetime.fromisoformat(t.replace("Z", "+00:00")).timestamp() for t in event.to_pylist()]
    stamp = pa.timestamp("ms", "UTC")
    columns = {}
    for feature in group["FeatureDefinitions"]:
        name = feature["FeatureName"]
        columns[name] = rows[name].cast(ARROW[feature["FeatureType"]])
    landed = pa.array([int((s // 3600 + 1) * 3_600_000) for s in seconds], pa.int64()).cast(stamp)
    called = pa.array([int(s) * 1000 + 2000 for s in seconds], pa.int64()).cast(stamp)
    columns["write_time"] = rows["write_time"] if "write_time" in rows.column_names else landed
    columns["api_invocation_time"] = (
        rows["api_invocation_time"] if "api_invocation_time" in rows.column_names else called)
    columns["is_deleted"] = (
        rows["is_deleted"] if "is_deleted" in rows.column_names else pa.array([False] * count))
    table = pa.table(columns)
    prefix = group["OfflineStoreConfig"]["S3StorageConfig"]["ResolvedOutputS3Uri"].split("/", 3)[3]
    hours = pa.array([int(s // 3600) for s in seconds], pa.int64())
    for hour in sorted(set(hours.to_pylist())):
        at = dt.datetime.fromtimestamp(hour * 3600, dt.timezone.utc)
        folder = at.strftime("year=%Y/month=%m/day=%d/hour=%H")
        name = f"{at.strftime('%Y%m%dT%H5959Z')}_{hour % 10**16:016d}.parquet"
        yield f"{prefix}/{folder}/{name}", table.filter(pc.equal(hours, hour))


def write_warehouse(folder, group, rows):
    """Adds one group and its rows to the warehouse at `folder`."""
    folder = pathlib.Path(folder)
    target = folder / "feature-groups" / f"{group['FeatureGroupName']}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(group, indent=2))
    for key, table in objects(group, rows):
        path = folder / "s3" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
