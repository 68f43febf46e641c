"""A driver through the checks, with the server all of them run against."""

import contextlib
import sys
import tempfile
import time

from checks import CHECKS, Bench, outcome
from paths import ROOT
from tool import Tool
from warehouse import write

sys.path.insert(0, str(ROOT / "tests" / "python"))
from conftest import serving  # noqa: E402


@contextlib.contextmanager
def server():
    """On the drivers' warehouse, which it writes too, with keep-alives dense enough to meet every driver."""
    with tempfile.TemporaryDirectory() as folder:
        write(folder)
        with serving("--warehouse", folder, "--own", env={"FEATUREFLIGHT__SERVER__KEEP_ALIVE": "100ms"}) as running:
            yield running


def passed_through(driver, running, names=None):
    """Yields (check, outcome) and, last, ("versions", ...). A tool that died is started again."""
    log = f"{tempfile.gettempdir()}/featureflight-driver-{driver.name}.log"
    tool = Tool(driver.start(), log)
    try:
        versions = tool.ask("about")
        for name in names or (*CHECKS, *driver.more):
            if not tool.alive():
                tool.stop()
                tool = Tool(driver.start(), log)
            began = time.monotonic()
            found = outcome(Bench(running, tool), name)
            yield name, found | {"seconds": round(time.monotonic() - began, 1)}
        yield "versions", versions
    finally:
        tool.stop()
