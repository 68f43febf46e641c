#!/usr/bin/env python3
"""Checks answers of ours against DuckDB SQL that says what the answer is: versions are numbered by event time, api invocation
time, write time, object and row; the one with the greatest number that no cut leaves out counts, unless it is a tombstone.

For a join the number of rows and the spine's columns are checked on the whole answer, and the features of a sample of the
spine's rows (all of them where there are few); a state is checked whole. The oracle's answers are kept beside the data.

    oracle.py CASE DIR ANSWER      says what it checked, or fails; a process of its own, so that its memory is gone afterwards
"""
import hashlib
import pathlib
import sys

import duckdb

import cases

RANK = "et, api_invocation_time, write_time, filename, file_row_number"
SAMPLE = 100_000


class Wrong(Exception):
    """An answer is not what it has to be."""


def connect(folder):
    c = duckdb.connect()
    c.execute(f"SET threads=2; SET TimeZone='UTC'; SET memory_limit='8GB'; SET temp_directory='{folder}/spill'")
    return c


def versions(c, folder, group, keys):
    """The numbered versions of the records among `keys` (SQL), and the group's features."""
    [data] = cases.history_folders(folder, [group])
    files = f"read_parquet('{data}/**/*.parquet', hive_partitioning=false, filename=true, file_row_number=true)"
    columns = c.execute(f"DESCRIBE SELECT * FROM {files}").fetchall()
    text = next(kind for name, kind, *_ in columns if name == "event_time") == "VARCHAR"
    et = "event_time::TIMESTAMPTZ" if text else "make_timestamp(round(event_time * 1e6)::BIGINT)::TIMESTAMPTZ"
    skipped = ("customer_id", "event_time", "write_time", "api_invocation_time", "is_deleted", "filename", "file_row_number")
    features = [name for name, *_ in columns if name not in skipped]
    return f"""(
        SELECT customer_id, et, is_deleted, {', '.join(features)}, row_number() OVER (ORDER BY {RANK}) AS number
        FROM (SELECT *, {et} AS et FROM {files} WHERE customer_id IN ({keys})))""", features


def join_sql(c, case, folder):
    spine = cases.raw(folder, case.spine)
    rows = c.execute(f"SELECT count(*) FROM '{spine}'").fetchone()[0]
    sample = f"WHERE hash(label) % {rows // SAMPLE} = 0" if rows >= 2 * SAMPLE else ""
    parts, columns, joins = [f"s AS (SELECT * FROM '{spine}' {sample})"], ["s.*"], ""
    for i, group in enumerate(case.groups):
        numbered, features = versions(c, folder, group, "SELECT customer_id FROM s")
        prefix = f"{group}__" if len(case.groups) > 1 else ""
        age = f"AND h.et >= s.ts - INTERVAL {case.max_age_days} DAY" if case.max_age_days else ""
        parts += [f"h{i} AS MATERIALIZED {numbered}", f"""
            w{i} AS (SELECT s.label, max(h.number) AS number FROM s JOIN h{i} h
                     ON s.customer_id = h.customer_id AND h.et <= s.ts {age} GROUP BY s.label)"""]
        columns += [f"h{i}.{feature} AS {prefix}{feature}" for feature in features]
        joins += (f" LEFT JOIN w{i} ON w{i}.label = s.label"
                  f" LEFT JOIN h{i} ON h{i}.number = w{i}.number AND NOT h{i}.is_deleted")
    return f"WITH {', '.join(parts)} SELECT {', '.join(columns)} FROM s {joins}"


def state_sql(c, case, folder):
    [data] = cases.history_folders(folder, ["customers"])
    keys = f"FROM '{cases.raw(folder, case.keys)}'" if case.keys else f"FROM '{data}/**/*.parquet'"
    numbered, features = versions(c, folder, "customers", f"SELECT customer_id {keys}")
    return f"""
        WITH h AS MATERIALIZED {numbered},
             w AS (SELECT max(number) AS number FROM h GROUP BY customer_id)
        SELECT customer_id, et AS event_time, {', '.join(features)} FROM h JOIN w USING (number) WHERE NOT is_deleted"""


def check(case, folder, answer):
    """What was checked, in words.

    Raises Wrong when `answer`, a Parquet file, differs.
    """
    c = connect(folder)
    sql = (state_sql if case.kind == "state" else join_sql)(c, case, folder)
    kept = pathlib.Path(folder) / f"oracle-{case.name}-{hashlib.sha256(sql.encode()).hexdigest()[:12]}.parquet"
    if not kept.exists():
        c.execute(f"COPY ({sql}) TO '{kept}.part' (FORMAT parquet)")
        pathlib.Path(f"{kept}.part").rename(kept)
    key = "customer_id" if case.kind == "state" else "label"

    def columns(file):
        return [name for name, *_ in c.execute(f"DESCRIBE SELECT * FROM '{file}'").fetchall()]

    if columns(answer) != columns(kept):
        raise Wrong(f"columns {columns(answer)} instead of {columns(kept)}")
    rows = c.execute(f"SELECT count(*) FROM '{answer}'").fetchone()[0]
    compared = c.execute(f"SELECT count(*) FROM '{kept}'").fetchone()[0]
    if case.kind == "join":
        whole = "SELECT count(*), count(DISTINCT label), sum(hash(label, customer_id, epoch_us(ts))::HUGEINT) FROM "
        ours, spine = (c.execute(f"{whole} '{file}'").fetchone() for file in (answer, cases.raw(folder, case.spine)))
        if ours != spine:
            raise Wrong(f"rows, labels and checksum of the spine's columns are {ours} instead of {spine}")
        answers = f"(SELECT * FROM '{answer}' WHERE label IN (SELECT label FROM '{kept}'))"
    else:
        if rows != compared:
            raise Wrong(f"{rows:,} rows instead of {compared:,}")
        answers = f"'{answer}'"
    differs = " OR ".join(f"a.{name} IS DISTINCT FROM o.{name}" for name in columns(kept))
    wrong = c.execute(f"SELECT count(*), min(coalesce(a.{key}, o.{key})) FROM '{kept}' o FULL JOIN {answers} a "
                      f"ON a.{key} = o.{key} WHERE {differs}").fetchone()
    if wrong[0]:
        raise Wrong(f"{wrong[0]:,} of {compared:,} rows differ from the oracle, {key} {wrong[1]} among them")
    return f"{rows:,} rows, {compared:,} of them value by value against the oracle"


def main():
    name, folder, answer = sys.argv[1:4]
    [case] = [case for case in cases.CASES if case.name == name]
    try:
        print(check(case, folder, answer))
    except Wrong as wrong:
        sys.exit(f"WRONG: {wrong}")


if __name__ == "__main__":
    main()
