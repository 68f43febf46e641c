"""What is too long for every run of the tests: the load of `server/tests/hostile/load.rs` by 256 clients for ten minutes, and the
figures of a million rows written from Python. Each is a test that fails when an answer is wrong, and leaves its figures.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass

from paths import ROOT


@dataclass(frozen=True)
class LongRun:
    name: str
    title: str
    # What it does and what its figures mean; both end up on the page.
    meaning: str
    command: tuple
    # The variable that names the file for its figures, and what else it needs.
    result: str
    environment: dict

    def measured(self):
        """Runs it; answers its figures."""
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            subprocess.run(self.command, check=True, cwd=ROOT, stdout=sys.stderr, env=os.environ | self.environment | {self.result: file.name})
            return json.load(file)


LONG_RUNS = [
    LongRun("writes", "A million rows from Python",
            "`adbc_ingest` appends them to a feature group, the state is read back at once and compared whole, the server is killed, and after its next start every row is in the Parquet "
            "files once, as DuckDB reads them (`tests/python/test_writes.py`).",
            (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/python/test_writes.py"), "FEATUREFLIGHT_WRITE_RESULT", {}),
    LongRun("load", "256 clients for ten minutes",
            "States, prepared lookups, both clocks by SQL, a session's clock, point-in-time joins with uploaded spines, results in slices, rows that are written and read at once, streams that "
            "fail at their end, sorts beyond memory, cancels, connections that break off: each answer is compared with what arithmetic says (`server/tests/hostile/load.rs`). `before` is after "
            "a warm-up by the same clients, `after` is when they have gone.",
            ("cargo", "test", "--locked", "-p", "featureflight-server", "--test", "hostile", "a_load_leaves_nothing_behind", "--", "--nocapture"),
            "FEATUREFLIGHT_LOAD_RESULT", {"FEATUREFLIGHT_LOAD": "256x600"}),
]
