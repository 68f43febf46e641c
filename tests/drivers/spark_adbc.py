"""PySpark with ADBC in its Python workers: `spark_adbc.py map_in_arrow` runs a statement inside `mapInArrow`; `spark_adbc.py
source` is a Python data source whose partitions are the endpoints of one result."""

import sys
from importlib.metadata import version

from adapter import main
from spark_jdbc import Spark


def options(headers, user, password):
    import adbc_driver_flightsql

    prefix = adbc_driver_flightsql.DatabaseOptions.RPC_CALL_HEADER_PREFIX.value
    found = {prefix + name: value for name, value in headers.items()}
    return found | ({"username": user, "password": password} if user else {})


def connect(uri, settings):
    import adbc_driver_flightsql.dbapi as flightsql

    return flightsql.connect(uri, settings, autocommit=True)


def schema_of(uri, settings, sql):
    with connect(uri, settings) as connection, connection.cursor() as cursor:
        return cursor.adbc_execute_schema(sql)


def partitions_of(uri, settings, sql):
    """Descriptors of the endpoints of one result; any process reads them."""
    with connect(uri, settings) as connection, connection.cursor() as cursor:
        return cursor.adbc_execute_partitions(sql)[0]


def batches_of(uri, settings, descriptor, schema):
    with connect(uri, settings) as connection, connection.cursor() as cursor:
        cursor.adbc_read_partition(descriptor)
        for found in cursor.fetch_record_batch():
            yield found.cast(schema)


def readable(schema):
    """The Arrow schema Spark has types for: it knows no unsigned 64-bit integers and no binary of a fixed size."""
    import pyarrow as pa

    def known(kind):
        return pa.decimal128(20, 0) if kind == pa.uint64() else pa.binary() if pa.types.is_fixed_size_binary(kind) else kind

    return pa.schema([field.with_type(known(field.type)) for field in schema])


class SparkAdbc(Spark):
    def about(self):
        return super().about() | {"adbc-driver-flightsql": version("adbc-driver-flightsql"), "pyarrow": version("pyarrow")}

    def where(self):
        return f"grpc://{self.place}", options(self.headers, self.user, self.password)


class MapInArrow(SparkAdbc):
    def frame(self, sql):
        from pyspark.sql.pandas.types import from_arrow_schema

        uri, settings = self.where()
        schema = readable(schema_of(uri, settings, sql))

        descriptors = partitions_of(uri, settings, sql)

        def read(batches):
            for batch in batches:
                for descriptor in batch.column(0).to_pylist():
                    yield from batches_of(uri, settings, descriptor, schema)

        # A partition, so a task, for each endpoint.
        rows = self.spark.sparkContext.parallelize([(bytearray(descriptor),) for descriptor in descriptors], len(descriptors))
        return self.spark.createDataFrame(rows, "descriptor binary").mapInArrow(read, from_arrow_schema(schema))


class Source(SparkAdbc):
    def frame(self, sql):
        from pyspark.sql.datasource import DataSource, DataSourceReader, InputPartition
        from pyspark.sql.pandas.types import from_arrow_schema

        uri, settings = self.where()
        schema = readable(schema_of(uri, settings, sql))

        class Reader(DataSourceReader):
            def partitions(self):
                return [InputPartition(descriptor) for descriptor in partitions_of(uri, settings, sql)]

            def read(self, partition):
                yield from batches_of(uri, settings, partition.value, schema)

        class Endpoints(DataSource):
            @classmethod
            def name(cls):
                return "featureflight"

            def schema(self):
                return from_arrow_schema(schema)

            def reader(self, schema):
                return Reader()

        self.spark.dataSource.register(Endpoints)
        return self.spark.read.format("featureflight").load()


if __name__ == "__main__":
    import adapter
    import spark_jdbc
    from pyspark import cloudpickle

    # The workers have no copy of these files.
    for module in (adapter, spark_jdbc):
        cloudpickle.register_pickle_by_value(module)
    main({"map_in_arrow": MapInArrow, "source": Source}[sys.argv[1]]())
