"""The quick drivers of `tests/drivers` must do what the committed results say they do, and the book's page is made of
those results. `tests/drivers/run` renews both.
"""

import sys
import textwrap

import pytest
from conftest import ROOT, serving

sys.path.insert(0, str(ROOT / "tests" / "drivers"))
import page  # noqa: E402
import suite  # noqa: E402
import warehouse  # noqa: E402
from charts import CHARTS  # noqa: E402
from long_runs import LONG_RUNS  # noqa: E402
from tools import DRIVERS, Driver  # noqa: E402

# Answers everything, and always with nothing.
LIAR = """
import sys
sys.path.insert(0, {folder!r})
from adapter import Adapter, main

class Liar(Adapter):
    def connect(self, **_): pass
    def option(self, **_): pass
    def upload(self, **_): pass
    def about(self): return {{}}
    def run(self, sql): pass
    def update(self, **_): return 0
    def query(self, **_): return {{"columns": [], "rows": []}}
    def drain(self, sql): return {{"rows": 0, "sums": {{}}}}
    def browse(self): return dict.fromkeys(["catalogs", "schemas", "tables", "columns", "keys"], [])
    def cancel(self, **_): return 0.0
    def chart(self, **_): return []

main(Liar())
"""

# A driver that is right but for one thing.
DEFECTIVE = """
import sys
sys.path.insert(0, {folder!r})
from adapter import main
from python_adbc import Pyarrow

class Defective(Pyarrow):
{defect}

main(Defective())
"""
LOSING = """
def connect(self, **where):
    super().connect(**where)
    self.asked = -99
def run(self, sql):
    super().run(sql)
    self.asked = 0
def query(self, **asked):
    self.asked += 1
    if self.asked > 1: {}
    return super().query(**asked)
"""
# By check; none of these may pass it.
DEFECTS = [
    ("endpoints", "def connect(self, headers, **where): super().connect(headers={}, **where)"),
    ("endpoints", "def drain(self, sql): return super().drain(sql) | {'tasks': 1}"),
    ("empty", "def query(self, **asked):\n found = super().query(**asked)\n return found if found['rows'] else {'columns': [], 'rows': []}"),
    ("empty", "def query(self, **asked):\n found = super().query(**asked)\n return found if found['rows'] else found | {'columns': found['columns'] * 2}"),
    # After the first answer of the clock, which is before the connection is cut.
    ("reconnect", LOSING.format("raise RuntimeError('lost')")),
    ("reconnect", LOSING.format("return {'columns': ['price'], 'rows': [['3.0']]}")),
    ("rarer types", "def cells(self, table):\n names, rows = super().cells(table)\n"
     " return names, [[v.replace(microsecond=0) if hasattr(v, 'microsecond') else v for v in row] for row in rows]"),
    ("rarer parameters", "def query(self, sql, parameters):\n return super().query(sql, parameters and [p | ({'value': 'false'} if p['type'] == 'boolean' else {}) for p in parameters])"),
    ("decimal parameters", "def query(self, sql, parameters):\n return super().query(sql, parameters and [p | {'value': str(float(p['value']))} for p in parameters])"),
    ("writes", "def update(self, sql, rows):\n super().update(sql, rows)\n return -1"),
    ("writes", "def update(self, sql, rows): return 3 if rows else 1 if 'DELETE' in sql else 2"),
    ("writes", "def update(self, sql, rows):\n super().update(sql, rows)\n if 'DELETE' not in sql: return super().update(sql, rows)"),
    ("spine in the statement", "def query(self, sql, parameters): return super().query(sql.replace('23:00', '22:00').replace('01-03 00', '01-02 00'), parameters)"),
    ("cancel", "def cancel(self, sql, after): return 0.0"),
]


@pytest.fixture(scope="module")
def server():
    with suite.server() as running:
        yield running


@pytest.mark.parametrize("driver", [pytest.param(d, id=d.name) for d in DRIVERS if not d.heavy])
def test_driver(driver, server):
    found = dict(suite.passed_through(driver, server))
    found.pop("versions")
    committed = page.results(driver)["checks"]
    outcomes = {name: (check["result"], check.get("why", "")) for name, check in found.items()}
    differing = {name: seen for name, seen in outcomes.items() if seen[0] != committed[name]["result"]}
    assert not differing and outcomes.keys() == committed.keys()


def test_every_check_can_fail(server):
    script = LIAR.format(folder=str(ROOT / "tests" / "drivers"))
    liar = Driver("liar", "", "", "", lambda: [sys.executable, "-c", script], more=tuple(CHARTS))
    believed = [name for name, check in suite.passed_through(liar, server) if name != "versions" and check["result"] == "pass"]
    assert believed == []


@pytest.mark.parametrize(("check", "defect"), [pytest.param(*one, id=f"{one[0]}-{place}") for place, one in enumerate(DEFECTS)])
def test_a_defect_is_found(check, defect, server):
    folder = str(ROOT / "tests" / "drivers")
    script = DEFECTIVE.format(folder=folder, defect=textwrap.indent(defect, "    "))
    driver = Driver("defective", "", "", "", lambda: [sys.executable, "-c", script])
    assert dict(suite.passed_through(driver, server, [check]))[check]["result"] == "fail"


def test_a_silent_server_is_found(tmp_path):
    warehouse.write_warehouse(tmp_path, warehouse.NOTES, warehouse.NOTE)
    with serving("--warehouse", str(tmp_path), env={"FEATUREFLIGHT__SERVER__KEEP_ALIVE": "0"}) as silent:
        found = dict(suite.passed_through(DRIVERS[0], silent, ["keep-alive"]))["keep-alive"]
    assert found["result"] == "fail" and "nothing came for" in found["why"], found


def test_every_failure_has_a_reason():
    for driver in DRIVERS:
        failing = [name for name, check in page.results(driver)["checks"].items() if check["result"] == "fail"]
        assert set(failing) == driver.because.keys(), driver.name


def test_the_page_is_made_of_the_results():
    assert [one.name for one in (*DRIVERS, *LONG_RUNS) if not page.results(one)] == []
    assert page.PAGE.read_text() == page.text()
