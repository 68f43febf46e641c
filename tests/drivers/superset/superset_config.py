"""Superset's configuration, as docs/connecting/drivers.md tells users to write it: how it reads this SQL, and how a
time series is grouped."""

from sqlglot import Dialects

SECRET_KEY = "of a server on loopback that lives as long as its checks"
# It believes to be behind TLS otherwise, and its cookies are lost.
TALISMAN_ENABLED = False
# SQL Lab fetches 100,000 rows by default, and shows 10,000.
SQL_MAX_ROW = DISPLAY_MAX_ROW = 2_000_000

# `base` is the dialect of databases Superset does not know.
SQLGLOT_DIALECTS_EXTENSIONS = {"base": Dialects.POSTGRES}
TIME_GRAIN_ADDON_EXPRESSIONS = {"base": {
    "PT1H": "date_trunc('hour', {col})", "P1D": "date_trunc('day', {col})", "P1W": "date_trunc('week', {col})",
    "P1M": "date_trunc('month', {col})", "P1Y": "date_trunc('year', {col})"}}
