#!/usr/bin/env python3
"""Measures ours in process and over Flight, the peers and the decode floor, side by side, and checks the answers.

Every measurement is a process of its own; a round runs each engine once, so that a slow minute hits all of them. Data is made
when it is missing. Prints one table per case; exits with 1 when an answer of ours is wrong or missing. Speed is never judged.
Needs what benches/run sets up: the binaries in FEATUREFLIGHT_BIN and FEATUREFLIGHT_BENCH, duckdb, pyarrow, the ADBC driver; the
peers polars and chdb are left out when they are not installed.
"""
import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile

import duckdb

import cases

HERE = pathlib.Path(__file__).resolve().parent
OURS, FLIGHT, FLOOR = "in process", "over Flight", "floor"
THREADS = 2
S3_KEYS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_REGION": "us-east-1",
           "AWS_EC2_METADATA_DISABLED": "true"}


def arguments(given=None):
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--dir", type=pathlib.Path, default=cache / "featureflight" / "bench-data",
                   help="where data is made and kept (about 8 GB)")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--scale", type=float, default=1.0, help="0.01 makes a hundredth of the data")
    p.add_argument("--case", action="append", choices=[case.name for case in cases.CASES], help="repeatable; default: all")
    p.add_argument("--engine", action="append", help=f"repeatable; default: all. '{OURS}', '{FLIGHT}', {FLOOR}, duckdb, ...")
    p.add_argument("--timeout", type=int, default=900, help="seconds for one run")
    p.add_argument("--json", type=pathlib.Path, help="append every measurement to this file, one JSON line each")
    return p.parse_args(given)


class Bench:
    """One run of this script."""

    def __init__(self, options, scratch):
        self.options, self.scratch = options, pathlib.Path(scratch)
        self.bench, self.failures = os.environ["FEATUREFLIGHT_BENCH"], []
        self.cpus = set(sorted(os.sched_getaffinity(0))[:THREADS])

    def process(self, command, env=None):
        """Runs one measurement on as many processors as everybody gets: its JSON line, or why there is none."""
        pinned = ["taskset", "-c", ",".join(map(str, self.cpus))] if shutil.which("taskset") else []
        try:
            done = subprocess.run([*pinned, *map(str, command)], capture_output=True, text=True,
                                  timeout=self.options.timeout, env=os.environ | (env or {}))
        except subprocess.TimeoutExpired:
            return {"failed": f"not done after {self.options.timeout} s"}
        if done.returncode:
            last = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
            return {"failed": last[:300]}
        return json.loads(done.stdout.strip().splitlines()[-1])

    def commands(self, case, folder, endpoint):
        """The command of every engine of a case, by its name in the table, and the file each writes."""
        matched = ["--matched", case.matched]
        memory = ["--memory-limit-mb", case.memory_limit_mb] if case.memory_limit_mb else []
        # A list as long as the data has keys; other statements do not name them.
        keys = ""
        if "{keys}" in case.sql:
            rows = duckdb.execute(f"SELECT customer_id FROM '{cases.raw(folder, case.keys)}'").fetchall()
            keys = ", ".join(f"'{key}'" for key, in rows)
        # In a file, as one argument holds 128 KiB at most.
        statement = self.scratch / f"{case.name}.sql"
        statement.write_text(case.sql.format(spine=case.spine, keys=keys))
        sql = f"@{statement}"
        out = {name: self.scratch / f"{case.name}-{name.replace(' ', '-')}.parquet" for name in (OURS, FLIGHT, FLOOR, *case.peers)}
        s3 = ["--s3", endpoint] if endpoint else []
        commands = {
            OURS: [self.bench, "ours", "--threads", THREADS, "--warehouse", folder / "warehouse", "--sql", sql, "--out", out[OURS],
                   *s3[:1], *matched, *memory],
            FLIGHT: [sys.executable, HERE / "ours.py", folder, sql, out[FLIGHT], *s3, *matched, *memory],
        }
        if case.floor:
            commands[FLOOR] = [self.bench, "floor", "--threads", THREADS, *cases.history_folders(folder, case.groups)]
        for peer in case.peers:
            if peer == "duckdb_state":
                keys = ["--keys", case.keys] if case.keys else []
                commands[peer] = [sys.executable, HERE / "state_peers.py", folder, out[peer], *keys]
            elif peer in ("duckdb", "aws_sql") or importlib.util.find_spec(peer):
                age = ["--max-age-days", case.max_age_days] if case.max_age_days else []
                commands[peer] = [sys.executable, HERE / "peers.py", peer, folder, out[peer], "--spine", case.spine,
                                  "--groups", ",".join(case.groups), *age, *memory, *s3]
        wanted = self.options.engine
        return {name: (command, out[name]) for name, command in commands.items() if not wanted or name in wanted}

    def run(self, case):
        folder = cases.make(self.options.dir / f"scale-{self.options.scale:g}", case.data, self.options.scale)
        print(f"\n## {case.name}: {case.title}\n", flush=True)
        if case.kind in ("wire", "latency"):
            return {"wire": self.wire, "latency": self.latency}[case.kind](case, folder)
        # The files of every case are in the system's cache before the first round.
        self.process([self.bench, "floor", *cases.history_folders(folder, case.groups)])
        with self.store(case, folder) as endpoint:
            env = S3_KEYS | {"AWS_ENDPOINT_URL_S3": endpoint} if endpoint else {}
            commands = self.commands(case, folder, endpoint)
            runs = {name: [] for name in commands}
            for _ in range(self.options.rounds):
                for name, (command, file) in commands.items():
                    if runs[name] and "failed" in runs[name][-1]:
                        continue
                    figures = self.process(command, env)
                    if name == FLIGHT and "failed" not in figures:
                        figures["checksum"] = self.process([self.bench, "answer", file])["checksum"]
                    runs[name].append(figures)
                    self.keep(case, name, figures)
            print(table(runs))
            self.check(case, folder, runs, commands)
            for _, file in commands.values():
                file.unlink(missing_ok=True)

    def wire(self, case, folder):
        rounds = ["--rounds", max(9, self.options.rounds)]
        file = cases.uploaded(self.options.dir, case.upload, self.options.scale) if case.upload else None
        figures = self.process([self.bench, "flight", "--threads", THREADS, "--warehouse", folder / "warehouse",
                                "--sql", case.sql.format(spine=case.spine), *rounds, *(["--upload", file] if file else [])])
        self.keep(case, "flight", figures)
        if "failed" in figures:
            return self.failed(case, figures["failed"])
        print("| read without decoding | seconds | MB per second | first batch, ms |\n|---|--:|--:|--:|")
        for name, key in (("ours over Flight SQL", "ours"), ("arrow-flight from memory", "floor")):
            first = figures["first_batch_ms" if key == "ours" else "floor_first_batch_ms"]
            print(f"| {name} | {figures[f'{key}_seconds']:.3f} | {figures[f'{key}_mb_per_s']:,.0f} | {first:.1f} |")
        print(f"\n{figures['rows']:,} rows, {figures['bytes'] / 1e6:,.1f} MB; ours reaches {figures['ours_of_floor']:.0%}")
        if file:
            figures = self.process([sys.executable, HERE / "adbc_wire.py", file, folder / "warehouse", *rounds])
            self.keep(case, "adbc", figures)
            if "failed" in figures:
                return self.failed(case, figures["failed"])
            rates = ", ".join(f"{name} {rate:,}" for name, rate in figures["mb_per_s"].items())
            print(f"In Python, decoded, MB per second: {rates}")
        return None

    def latency(self, case, folder):
        key, = duckdb.execute(f"SELECT customer_id FROM '{cases.raw(folder, 'lookup')}' LIMIT 1").fetchone()
        print("| clients | p50, ms | p99, ms | queries per second |\n|--:|--:|--:|--:|")
        for clients, connections in ((1, 200), (64, 20)):
            figures = self.process([self.bench, "latency", "--threads", THREADS, "--warehouse", folder / "warehouse",
                                    "--sql", case.sql.format(key=key), "--clients", clients, "--connections", connections])
            self.keep(case, "latency", figures)
            if "failed" in figures:
                return self.failed(case, figures["failed"])
            print(f"| {clients} | {figures['p50_ms']:.1f} | {figures['p99_ms']:.1f} | {figures['queries_per_second']:,.0f} |")
        return None

    @contextlib.contextmanager
    def store(self, case, folder):
        """A slow S3 over the case's files, for the cases that want one."""
        if not case.s3:
            yield None
            return
        server = subprocess.Popen([self.bench, "slow-s3", "--root", folder / "warehouse" / "s3"], stdout=subprocess.PIPE, text=True)
        try:
            yield re.search(r"http://\S+", server.stdout.readline()).group(0)
        finally:
            server.terminate()
            server.wait()

    def check(self, case, folder, runs, commands):
        """Every run of ours must have succeeded with the same answer, and the answer must be the oracle's."""
        ours = [name for name in (OURS, FLIGHT) if name in runs]
        broken = {name: run["failed"] for name in ours for run in runs[name] if "failed" in run}
        for name, why in broken.items():
            self.failed(case, f"{name}: {why}")
        checksums = {run["checksum"] for name in ours for run in runs[name] if "checksum" in run}
        if len(checksums) > 1:
            self.failed(case, f"the runs of ours do not agree: checksums {sorted(checksums)}")
        answered = [name for name in ours if name not in broken]
        if not answered:
            return
        oracle = subprocess.run([sys.executable, HERE / "oracle.py", case.name, folder, commands[answered[0]][1]],
                                capture_output=True, text=True)
        if oracle.returncode:
            self.failed(case, f"answers: {oracle.stderr.strip()}")
        elif len(checksums) == 1:
            print(f"\nanswers: checked ({oracle.stdout.strip()}; checksum {checksums.pop()} in every run of ours)")

    def failed(self, case, why):
        self.failures.append(f"{case.name}: {why}")
        print(f"\n**{why}**")

    def keep(self, case, name, figures):
        if self.options.json:
            with self.options.json.open("a") as file:
                file.write(json.dumps({"case": case.name, "scale": self.options.scale, "row": name, **figures}) + "\n")


def table(runs):
    """Medians over the rounds, beside the fastest peer and the floor."""
    def median(name, key):
        values = [run[key] for run in runs.get(name, []) if run.get(key) is not None]
        return statistics.median(values) if values else None

    seconds = {name: median(name, "seconds") for name in runs}
    peers = [value for name, value in seconds.items() if name not in (OURS, FLIGHT, FLOOR) and value]
    fastest, floor = min(peers, default=None), seconds.get(FLOOR)
    lines = ["| | seconds | from - to | of the fastest peer | of the floor | peak MB | rows | matched | files read | MB read |",
             "|---|" + "--:|" * 9]
    for name, done in runs.items():
        if seconds[name] is None:
            lines.append(f"| {name} | failed: {done[-1]['failed'] if done else ''} |" + " |" * 8)
            continue
        every = [run["seconds"] for run in done if "seconds" in run]
        ratio = [f"{seconds[name] / base:.2f}" if base else "" for base in (fastest, floor)]
        whole = [f"{value:,.0f}" if (value := median(name, key)) is not None else ""
                 for key in ("peak_rss_mb", "rows", "matched", "files_read")]
        read = median(name, "bytes_read")
        cells = [f"{seconds[name]:.2f}", f"{min(every):.2f} - {max(every):.2f}", *ratio, *whole,
                 f"{read / 1e6:,.1f}" if read is not None else ""]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def versions():
    found = [f"{name} {importlib.metadata.version(name)}" for name in ("duckdb", "polars", "chdb", "pyarrow")
             if importlib.util.find_spec(name)]
    processor = next((line.split(":")[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
                      if line.startswith("model name")), platform.machine())
    return f"{processor}, {THREADS} threads each; {', '.join(found)}"


def main():
    options = arguments()
    options.dir.mkdir(parents=True, exist_ok=True)
    print(f"{versions()}; scale {options.scale:g}, {options.rounds} rounds")
    with tempfile.TemporaryDirectory(dir=options.dir) as scratch:
        bench = Bench(options, scratch)
        for case in cases.CASES:
            if not options.case or case.name in options.case:
                bench.run(case)
    if bench.failures:
        print("\nfailed:\n" + "\n".join(f"- {failure}" for failure in bench.failures))
        sys.exit(1)


if __name__ == "__main__":
    main()
