"""The benchmarks at a tiny scale: they run, the answers of ours are those of the oracle, and no written row is lost. Speed is not
looked at."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benches"))
import cases  # noqa: E402


def test_answers(tmp_path):
    bench = pathlib.Path(os.environ["FEATUREFLIGHT_TEST_TOOLS"]) / "featureflight-benches"
    done = subprocess.run(
        [sys.executable, ROOT / "benches" / "run.py", "--dir", tmp_path, "--scale", "0.001", "--rounds", "1"],
        capture_output=True, text=True, env=os.environ | {"FEATUREFLIGHT_BENCH": str(bench)})
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert done.stdout.count("answers: checked") == sum(case.kind in ("join", "state") for case in cases.CASES)


def test_writes(tmp_path):
    bench = pathlib.Path(os.environ["FEATUREFLIGHT_TEST_TOOLS"]) / "featureflight-benches"
    done = subprocess.run(
        [sys.executable, ROOT / "benches" / "writes.py", "--dir", tmp_path, "--scale", "0.002"],
        capture_output=True, text=True, env=os.environ | {"FEATUREFLIGHT_BENCH": str(bench)})
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    for case in ("Durable rows in", "Acknowledgement", "Queries beside rows that wait", "Records to the online store"):
        assert case in done.stdout
