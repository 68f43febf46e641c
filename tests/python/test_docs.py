"""Runs what the README and the book tell people to type, as it stands there: Python snippets,
command lines, configuration files (server/tests/docs.rs runs the SQL). What no rule here knows
fails, so that a new block or command cannot go unrun unnoticed.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib

import pytest
from cloud import CREDENTIALS, SageMaker
from conftest import ROOT, binary, serving

# Where the pages expect the server.
ADDRESS = "grpc://127.0.0.1:50051"

# The opening line is kept whole: docs.rs knows a block of SQL by it.
FENCE = re.compile(r"^([ >]*(?:```|~~~)[^\n]*)\n(.*?)^[ >]*(?:```|~~~) *$", re.M | re.S)
COMMAND_IN_PROSE = re.compile(r"`((?:featureflight|cargo run) [^`]+)`")


PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def snippets():
    for page in PAGES:
        name, text = str(page.relative_to(ROOT)), page.read_text()
        for block in FENCE.finditer(text):
            yield f"{name}:{text.count(chr(10), 0, block.start()) + 1}", *block.groups()
        for command in COMMAND_IN_PROSE.findall(FENCE.sub("", text)):
            yield name, "```sh", command


SNIPPETS = list(snippets())


def of(language):
    return [pytest.param(text, id=place) for place, opening, text in SNIPPETS if opening == f"```{language}"]


def command_lines():
    for place, opening, text in SNIPPETS:
        if opening == "```sh":
            for line in text.replace("\\\n", " ").splitlines():
                if words := shlex.split(line, comments=True):
                    yield pytest.param(words, id=f"{place} {' '.join(words)}")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The documented `featureflight demo`, small, after its tour."""
    folder = tmp_path_factory.mktemp("demo") / "warehouse"
    with serving("--customers", "1500", "--dir", str(folder), command="demo") as running:
        running.warehouse = folder
        yield running


@pytest.fixture(scope="module")
def writer(server, tmp_path_factory):
    """A server that owns a copy of the warehouse."""
    folder = tmp_path_factory.mktemp("owned") / "warehouse"
    shutil.copytree(server.warehouse, folder)
    with serving("--warehouse", str(folder), "--own") as running:
        yield running


@pytest.fixture(scope="module")
def desk(server, tmp_path_factory):
    """A folder with the files the pages speak of, and an AWS account without feature groups."""
    folder = tmp_path_factory.mktemp("desk")
    for name in ("DIR", "descriptions"):
        (folder / name).symlink_to(server.warehouse)
    (folder / "queries.sql").write_text("SELECT count(*) FROM customers;")
    aws = SageMaker()
    yield {"cwd": folder, "env": {**CREDENTIALS, "AWS_ENDPOINT_URL": aws.url, "FEATUREFLIGHT_URL": server.uri}}
    aws.stop()


def run(*words, cwd=None, env=None):
    done = subprocess.run(
        [binary(), *words], input="SELECT 42;", capture_output=True, text=True, timeout=60, cwd=cwd,
        env={**os.environ, **(env or {})})
    assert done.returncode == 0 and done.stdout, done.stderr
    return done.stdout


def prose(pattern):
    pages = [FENCE.sub("", page.read_text()) for page in PAGES]
    return {found for page in pages for found in re.findall(pattern, page)}


def test_prose_names_what_exists():
    commands = {"serve", "sql", "demo"}
    helped = " ".join(run(command, "--help") for command in commands)
    flags = prose(rf"`(?:(?:{'|'.join(commands)}) )?(--[a-z-]+)[ `]")
    assert flags and [flag for flag in flags if f" {flag} " not in helped] == []
    paths = prose(r"`((?:catalog|udf|engine|server|cli|tests|docs|benches|\.ci)/[^` ]*)`")
    assert paths and [path for path in paths if not any(ROOT.glob(path))] == []


def test_every_block_is_of_a_kind_that_runs():
    runs = {f"```{language}" for language in ("python", "sh", "toml", "sql", "text")}
    assert [(place, opening) for place, opening, _ in SNIPPETS if opening not in runs] == []


# The pages promise connections without warnings.
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("text", of("python"))
def test_python(text, server, writer):
    serves = writer if "adbc_ingest(\"customers\"" in text else server
    exec(text.replace(ADDRESS, serves.uri), {})


@pytest.mark.parametrize("words", list(command_lines()))
def test_command(words, server, desk):
    match [word.replace(ADDRESS, server.uri) for word in words]:
        case ["tests/run"]:
            pytest.skip("it is what runs this test")
        case ["benches/run", *arguments]:  # test_benches.py measures something.
            sys.path.insert(0, str(ROOT / "benches"))
            if arguments[:1] == ["writes"]:
                import writes
                writes.arguments(arguments[1:])
            else:
                import run as benches
                benches.arguments(arguments)
            return
        case ["featureflight", *arguments] | ["cargo", "run", "--release", "--", *arguments]:
            pass
        case _:
            pytest.fail(f"no rule runs {words}")
    match arguments:
        case ["demo"]:
            pass  # The fixture is this command.
        case ["serve", *rest] if "--print-config" not in rest:
            with serving(*rest, **desk) as started:
                assert started.stop() == 0
        case ["serve" | "sql", *_]:
            run(*arguments, **desk)
        case _:
            pytest.fail(f"no rule runs {words}")


@pytest.mark.parametrize("text", of("toml"))
def test_configuration_file(text, desk):
    (desk["cwd"] / "featureflight.toml").write_text(text)
    with serving("--config", "featureflight.toml", **desk) as started:
        assert started.stop() == 0


def flat(settings, above=""):
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from flat(value, f"{above}{key}.")
        else:
            yield above + key, value


def test_configuration_table():
    """Every key, and no other, with its default: as its environment variable it changes nothing."""
    table = (ROOT / "docs" / "configuration.md").read_text()
    documented = dict(re.findall(r"^\| `(\w+(?:\.\w+)+)` \| *(.*?) *\|", table, re.M))
    printed = run("serve", "--print-config")
    settings = tomllib.loads(re.sub(r"^# (\w+) =$", r"\1 = ''", printed, flags=re.M))
    actual = dict(flat(settings))
    assert documented.keys() == actual.keys()
    assert [key for key, default in documented.items() if not default and actual[key]] == []
    variables = {
        f"FEATUREFLIGHT__{key.upper().replace('.', '__')}": default.strip("`")
        for key, default in documented.items() if default.startswith("`")}
    assert run("serve", "--print-config", env=variables) == printed
