"""`serve --aws` against running stand-ins over HTTP: moto for S3 and Glue, the tests' own fake for
the SageMaker control plane (moto lacks most of it): discovery, data, a new group, a new file, throttling,
an S3 that goes away.
"""

import adbc_driver_manager
import pyarrow as pa
import pytest
from cloud import Cloud, eventually
from conftest import serving
from sagemaker_layout import description

FEATURES = {"CustomerId": "String", "EventTime": "String", "Age": "Integral", "Spend": "Fractional"}


@pytest.fixture()
def cloud():
    cloud = Cloud()
    yield cloud
    cloud.stop()


def versions(rows):
    names = list(FEATURES)
    return pa.table({n: [r[i] for r in rows] for i, n in enumerate(names)})


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
