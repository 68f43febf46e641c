"""PySpark reading with `format("jdbc")` through Apache's Flight SQL JDBC driver: each statement is a table of its own."""

import os
import sys

from adapter import Adapter, NotOffered, main, text

os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
READS_NIO = "--add-opens=java.base/java.nio=ALL-UNNAMED"


def session(jars=""):
    from pyspark.sql import SparkSession

    return (SparkSession.builder.master("local[2]").appName("drivers")
            .config("spark.ui.enabled", "false").config("spark.driver.host", "127.0.0.1").config("spark.driver.bindAddress", "127.0.0.1")
            .config("spark.jars", jars).config("spark.driver.extraJavaOptions", READS_NIO)
            # After a cancel Spark lets a worker of Python, and so its connection, live on for two seconds.
            .config("spark.python.task.killTimeout", "500ms")
            .config("spark.sql.session.timeZone", "UTC").getOrCreate())


class Spark(Adapter):
    """What all ways into Spark share: a statement is a data frame, everything else the frame's."""

    # Whether each endpoint of a result is a task's.
    parallel = True

    def __init__(self, jars=""):
        self.spark = session(jars)

    def about(self):
        java = self.spark._jvm.java.lang.System.getProperty("java.version")
        return {"pyspark": self.spark.version, "java": java}

    def connect(self, host, port, headers, user, password):
        self.place, self.headers, self.user, self.password = f"{host}:{port}", headers, user, password

    def close(self):
        pass

    def explained(self, error):
        java = getattr(error, "java_exception", None)
        return str(java.getMessage() if java else error)

    def run(self, sql):
        raise NotOffered("Spark reads tables and queries; other statements go through a driver")

    def browse(self):
        raise NotOffered("Spark reads the table or query it is given")

    def query(self, sql, parameters):
        if parameters:
            raise NotOffered("a query of a data frame has no parameters")
        frame = self.frame(sql)
        return {"columns": frame.columns, "rows": [[text(plain(value)) for value in row] for row in frame.collect()]}

    def update(self, sql, rows):
        raise NotOffered("Spark reads the table or query it is given; write through a driver")

    def drain(self, sql):
        from pyspark.sql import functions

        frame = self.frame(sql)
        names = [field.name for field in frame.schema if field.dataType.typeName() in ("long", "integer", "double", "decimal")]
        frame = frame.withColumn("task", functions.spark_partition_id())
        found = frame.agg(functions.count("*"), functions.count_distinct("task"), *(functions.sum(name) for name in names)).collect()[0]
        return {"rows": found[0], "sums": dict(zip(names, map(float, found[2:])))} | ({"tasks": found[1]} if self.parallel else {})

    def option(self, name, value):
        raise NotOffered("every task is a session of its own; write a header")

    def upload(self, name, columns, rows):
        raise NotOffered("every task is a session of its own; upload through a driver")

    def cancel(self, sql, after):
        # The first job of a session takes seconds to begin.
        self.query("SELECT 1", None)
        self.spark.sparkContext.setJobGroup("cancelled", sql, True)
        self.spark.conf.set("spark.sql.execution.interruptOnCancel", "true")
        return self.cancelling(lambda: self.in_group(sql), lambda: self.spark.sparkContext.cancelJobGroup("cancelled"), after)

    def in_group(self, sql):
        self.spark.sparkContext.setJobGroup("cancelled", sql, True)
        self.frame(sql).collect()


def plain(value):
    return value.asDict() if hasattr(value, "asDict") else value


class SparkJdbc(Spark):
    parallel = False

    def frame(self, sql):
        url = f"jdbc:arrow-flight-sql://{self.place}?useEncryption=false&featureflight-timestamps=text"
        url += "".join(f"&{name}={value}" for name, value in self.headers.items())
        reader = (self.spark.read.format("jdbc").option("driver", "org.apache.arrow.driver.jdbc.ArrowFlightJdbcDriver").option("url", url)
                  .option("query", sql))
        if self.user:
            reader = reader.option("user", self.user).option("password", self.password)
        return reader.load()


if __name__ == "__main__":
    main(SparkJdbc(sys.argv[1]))
