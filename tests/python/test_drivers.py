"""The quick drivers of `tests/drivers` must do what the committed results say they do, and the book's page is made of
those results. `tests/drivers/run` renews both.
"""

import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "tests" / "drivers"))
import page  # noqa: E402
import suite  # noqa: E402
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
    def query(self, **_): return {{"columns": [], "rows": []}}
    def drain(self, sql): return {{"rows": 0, "sums": {{}}}}
    def browse(self): return dict.fromkeys(["catalogs", "schemas", "tables", "columns", "keys"], [])
    def cancel(self, **_): return 0.0
    def chart(self, **_): return []

main(Liar())
"""


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


def test_the_page_is_made_of_the_results():
    assert [one.name for one in (*DRIVERS, *LONG_RUNS) if not page.results(one)] == []
    assert page.PAGE.read_text() == page.text()
