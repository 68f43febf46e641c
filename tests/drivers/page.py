"""The page of the book with the drivers' table, made of the committed results."""

import json

from checks import CHECKS
from paths import HERE, ROOT
from tools import DRIVERS

PAGE = ROOT / "docs" / "connecting" / "drivers.md"
SIGNS = {"pass": "yes", "fail": "**no**", "not offered": "–"}


def text():
    return "\n".join(["# Drivers"])
