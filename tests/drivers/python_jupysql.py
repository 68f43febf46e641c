"""JupySQL: `%sql` in an IPython shell, on a SQLAlchemy engine."""

import os
import re

# It would report its use over the network.
os.environ["PLOOMBER_STATS_ENABLED"] = "false"

from adapter import NotOffered, main, python, text  # noqa: E402
from IPython.core.interactiveshell import InteractiveShell  # noqa: E402
from python_sqlalchemy import SqlAlchemy  # noqa: E402


class JupySql(SqlAlchemy):
    packages = ["jupysql", *SqlAlchemy.packages]

    def __init__(self, shell):
        self.shell = shell
        shell.run_line_magic("load_ext", "sql")
        for setting in ("displaycon = False", "feedback = 0", "named_parameters = 'disabled'", "displaylimit = 1"):
            shell.run_line_magic("config", f"SqlMagic.{setting}")

    def connect(self, **where):
        super().connect(**where)
        self.shell.user_ns["engine"] = self.engine
        self.shell.run_line_magic("sql", "engine --alias under_test")

    def close(self):
        if self.engine:
            self.shell.run_line_magic("sql", "--close under_test")
        super().close()

    def cell(self, sql):
        return self.shell.run_cell_magic("sql", "", sql)

    def run(self, sql):
        self.cell(sql)

    def query(self, sql, parameters):
        if parameters:
            return self.with_parameters(sql, parameters)
        result = self.cell(sql)
        return {"columns": list(result.keys), "rows": [[text(value) for value in row] for row in result]}

    def with_parameters(self, sql, parameters):
        """JupySQL binds names of the notebook, written `:name`."""
        names = iter(range(len(parameters)))
        named = re.sub(r"\?", lambda _: f":bound{next(names)}", sql)
        self.shell.user_ns |= {f"bound{i}": python(p) for i, p in enumerate(parameters)}
        self.shell.run_line_magic("config", "SqlMagic.named_parameters = 'enabled'")
        try:
            return self.query(named, None)
        finally:
            self.shell.run_line_magic("config", "SqlMagic.named_parameters = 'disabled'")

    def update(self, sql, rows):
        if rows:
            raise NotOffered("%sql has no batches of parameters")
        self.cell(sql)

    def drain(self, sql):
        frame = self.cell(sql).DataFrame()
        numeric = frame.select_dtypes("number")
        return {"rows": len(frame), "sums": {name: numeric[name].sum() for name in numeric.columns}}

    def option(self, name, value):
        raise NotOffered("%sql has no options of a session; write `SET` or a header into the URL")

    def upload(self, name, columns, rows):
        raise NotOffered("`%sql --persist` writes a permanent table; upload with a cursor of ADBC")

    def cancel(self, sql, after):
        raise NotOffered("%sql has no cancel beside the kernel's interrupt")


if __name__ == "__main__":
    main(JupySql(InteractiveShell.instance()))
