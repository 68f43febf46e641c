"""Random statements over the tables of test_random_sql.py, in our SQL and in DuckDB's.

A statement is drawn from a seed: the same seed gives the same statement in either dialect, and all that
differs between the two is how a table is named at a time. What the two engines are known to answer
differently by their own rules is not drawn: division of whole numbers, overflow, -0.0, the order of ties.
"""

# The columns that statements may use, of each table, by type.
TABLES = {
    "numbers": {"id": "int", "n": "int", "x": "float", "s": "text", "b": "bool", "seen": "time"},
    "pairs": {"id": "int", "n": "int", "s": "text", "x": "float"},
    "prices": {"sku": "text", "seen": "time", "n": "int", "price": "float"},
    "history.prices": {"sku": "text", "seen": "time", "n": "int", "price": "float", "is_deleted": "bool"},
    "joined": {"sku": "text", "ts": "time", "label": "int", "price": "float", "n": "int"},
}
CONSTANTS = {
    "int": ["0", "1", "2", "3", "-1", "7"],
    # Written out, these are decimals in DuckDB.
    "float": [f"CAST({number} AS DOUBLE)" for number in (0.5, 1.0, 1.5, 2.25, -3.5)],
    "text": ["'a'", "'b'", "'ab'", "''", "'c'"],
    "bool": ["true", "false"],
    "time": [f"TIMESTAMP '2026-01-0{day} {hour:02}:00:00'" for day in (1, 2, 3, 4, 5) for hour in (0, 12)],
}
COMPARISONS = ["=", "<>", "<", "<=", ">", ">=", "IS DISTINCT FROM", "IS NOT DISTINCT FROM"]
GROUPINGS = ["{}", "{}", "{}", "{}", "ROLLUP ({})", "CUBE ({})", "GROUPING SETS (({}), ())"]
FRAMES = ["", "", "", " RANGE BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING", " RANGE BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING",
          " GROUPS BETWEEN 1 PRECEDING AND CURRENT ROW", " GROUPS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING"]
# Of the values before and behind a row's own, by the type they are ordered by.
RANGES = {
    "int": ["1 PRECEDING AND 1 FOLLOWING", "UNBOUNDED PRECEDING AND 1 PRECEDING"],
    "float": ["0.5 PRECEDING AND CURRENT ROW"],
    "time": ["INTERVAL '1 day' PRECEDING AND CURRENT ROW", "INTERVAL '36 hours' PRECEDING AND INTERVAL '12 hours' PRECEDING",
             "CURRENT ROW AND INTERVAL '12 hours' FOLLOWING"],
}
JOINS = ["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]


class Scope(list):
    """The columns in reach, as (name, type)."""

    def of(self, kind):
        return [name for name, its in self if its == kind]


class Statements:
    """`random` draws; `ours` is the dialect."""

    def __init__(self, random, ours):
        self.random, self.ours = random, ours
        self.relations = 0
        self.ctes = {}

    def chance(self, part):
        return self.random.random() < part

    def pick(self, choices):
        return self.random.choice(list(choices))

    def statement(self):
        with_clause = ""
        if self.chance(0.2):
            sql, columns = self.select(2)
            with_clause = f"WITH c AS ({sql}) "
            self.ctes = {"c": dict(columns)}
        sql, columns = self.query(3)
        return with_clause + (self.ordered(sql, columns) if self.chance(0.3) else sql)

    def ordered(self, sql, columns):
        """By all of its columns, so that a part of the rows is the same part in either engine."""
        order = ", ".join(
            f"{place + 1} {self.pick(['ASC', 'DESC'])} NULLS {self.pick(['FIRST', 'LAST'])}"
            for place in range(len(columns)))
        sql = f"SELECT * FROM ({sql}) o ORDER BY {order}"
        if self.chance(0.6):
            sql += f" LIMIT {self.random.randint(0, 9)}"
            if self.chance(0.4):
                sql += f" OFFSET {self.random.randint(0, 5)}"
        return sql

    def query(self, depth):
        """(sql, [(name, type)]) of a SELECT or a set operation."""
        if depth < 2 or self.chance(0.8):
            return self.select(depth)
        kinds = [self.pick(CONSTANTS) for _ in range(self.random.randint(1, 3))]
        left, columns = self.select(depth - 1, kinds)
        right, _ = self.select(depth - 1, kinds)
        operation = self.pick(["UNION", "UNION ALL", "INTERSECT", "EXCEPT", "INTERSECT ALL", "EXCEPT ALL"])
        return f"{left} {operation} {right}", columns

    def select(self, depth, kinds=None):
        relations, scope = self.sources(depth)
        where = f" WHERE {self.condition(scope, depth)}" if self.chance(0.4) else ""
        kinds = kinds or [self.pick(CONSTANTS) for _ in range(self.random.randint(1, 4))]
        columns = [(f"c{place}", kind) for place, kind in enumerate(kinds)]
        if self.chance(0.35):
            return self.grouped(relations, where, scope, columns), columns
        values = [
            self.window(kind, scope) if self.chance(0.1) else self.value(kind, scope, depth)
            for _, kind in columns]
        distinct = "DISTINCT " if self.chance(0.2) else ""
        return f"SELECT {distinct}{self.named(values, columns)} FROM {relations}{where}", columns

    def grouped(self, relations, where, scope, columns):
        # A constant is the place of a column there.
        keys = dict(self.random.sample(scope, min(len(scope), self.random.randint(0, 2))))
        values = []
        for _, kind in columns:
            same = [key for key, its in keys.items() if its == kind]
            values.append(self.pick(same) if same and self.chance(0.6) else self.aggregate(kind, scope))
        by = f" GROUP BY {self.pick(GROUPINGS).format(', '.join(keys))}" if keys else ""
        having = f" HAVING {self.aggregate('int', scope)} {self.pick(COMPARISONS[:6])} 1" if self.chance(0.15) else ""
        return f"SELECT {self.named(values, columns)} FROM {relations}{where}{by}{having}"

    def named(self, values, columns):
        return ", ".join(f"{value} AS {name}" for value, (name, _) in zip(values, columns))

    def sources(self, depth):
        sql, scope = self.relation(depth)
        for _ in range(self.pick([0, 0, 0, 1, 1, 2])):
            right, more = self.relation(depth - 1)
            both = Scope(scope + more)
            if self.chance(0.05):
                sql, scope = f"{sql} CROSS JOIN {right}", both
                continue
            join = self.pick(JOINS)
            if join == "FULL JOIN" or self.chance(0.8):
                # Both engines want an equality to join all of both sides.
                condition = self.equality(scope, more)
                if join != "FULL JOIN" and self.chance(0.4):
                    condition += f" AND {self.condition(both, 0)}"
            else:
                join, condition = "JOIN", self.condition(both, 0)
            sql, scope = f"{sql} {join} {right} ON {condition}", both
        return sql, scope

    def equality(self, left, right):
        kinds = [kind for kind in ("int", "text", "time") if left.of(kind) and right.of(kind)]
        if not kinds:
            return self.condition(Scope(left + right), 0)
        kind = self.pick(kinds)
        operator = "IS NOT DISTINCT FROM" if self.chance(0.15) else "="
        return f"{self.pick(left.of(kind))} {operator} {self.pick(right.of(kind))}"

    def relation(self, depth):
        """(sql, scope) of a table, a state at a time or a subquery, under a name of its own."""
        self.relations += 1
        alias = f"r{self.relations}"
        if depth > 1 and self.chance(0.25):
            sql, columns = self.query(depth - 1)
            sql = f"({self.ordered(sql, columns) if self.chance(0.2) else sql})"
        else:
            tables = {**TABLES, **self.ctes}
            name = self.pick(tables)
            sql, columns = self.table(name), tables[name].items()
        return f"{sql} {alias}", Scope((f"{alias}.{name}", kind) for name, kind in columns)

    def table(self, name):
        if name != "prices" or self.chance(0.3):
            return name
        moment = self.pick(CONSTANTS["time"])
        return f"prices FOR VALID_TIME AS OF {moment}" if self.ours else f"prices_at({moment})"

    def condition(self, scope, depth):
        if depth > 0 and self.chance(0.4):
            one, other = self.condition(scope, depth - 1), self.condition(scope, depth - 1)
            return f"({one} {self.pick(['AND', 'OR'])} {other})"
        if self.chance(0.1):
            return f"NOT ({self.condition(scope, 0)})"
        if depth > 1 and self.chance(0.2):
            return self.subquery(scope)
        kind = self.pick(CONSTANTS)
        value = self.value(kind, scope, depth - 1)
        form = self.random.randint(0, 9)
        if form == 0:
            return f"{value} IS {self.pick(['', 'NOT '])}NULL"
        if form == 1:
            choices = ", ".join(self.random.sample(CONSTANTS[kind], 2))
            return f"{value} {self.pick(['', 'NOT '])}IN ({choices})"
        if form == 2:
            low, high = self.value(kind, scope, 0), self.value(kind, scope, 0)
            return f"{value} {self.pick(['', 'NOT '])}BETWEEN {low} AND {high}"
        if form == 3 and kind == "text":
            pattern = self.pick(["a%", "%b", "_", "%", "a_", ""])
            return f"{value} {self.pick(['', 'NOT '])}LIKE '{pattern}'"
        if form == 4 and kind == "bool":
            return f"{value} IS {self.pick(['', 'NOT '])}{self.pick(['TRUE', 'FALSE', 'UNKNOWN'])}"
        if form == 5 and kind == "bool":
            return f"{value}"
        if form == 5 and kind == "time":
            return f"{value} - {self.value(kind, scope, 0)} {self.pick(COMPARISONS[:6])} INTERVAL '{self.pick(['12 hours', '1 day', '0 days'])}'"
        return f"{value} {self.pick(COMPARISONS)} {self.value(kind, scope, depth - 1)}"

    def subquery(self, scope):
        inner, columns = self.relation(0)
        kinds = [kind for kind in ("int", "text") if columns.of(kind) and scope.of(kind)]
        kind = self.pick(kinds) if kinds else None
        if kind and self.chance(0.6):
            matches = f"{self.pick(columns.of(kind))} = {self.pick(scope.of(kind))} AND "
        else:
            matches = ""
        where = f"{matches}{self.condition(columns, 0)}"
        form = self.random.randint(0, 3)
        if form == 3:
            value = self.value("int", scope, 0)
            return f"{value} {self.pick(COMPARISONS[:6])} (SELECT count(*) FROM {inner} WHERE {where})"
        if form == 0 or not columns.of("int"):
            return f"{self.pick(['', 'NOT '])}EXISTS (SELECT 1 FROM {inner} WHERE {where})"
        column = self.pick(columns.of("int"))
        value = self.value("int", scope, 0)
        if form == 1:
            return f"{value} {self.pick(['', 'NOT '])}IN (SELECT {column} FROM {inner} WHERE {where})"
        return f"{value} {self.pick(COMPARISONS[:6])} (SELECT {self.pick(['min', 'max'])}({column}) FROM {inner} WHERE {where})"

    def leaf(self, kind, scope):
        columns = scope.of(kind)
        if columns and self.chance(0.8):
            return self.pick(columns)
        return self.pick(CONSTANTS[kind])

    def value(self, kind, scope, depth):
        if depth <= 0 or self.chance(0.45):
            return self.leaf(kind, scope)
        if self.chance(0.15):
            when = self.condition(scope, 0)
            otherwise = f" ELSE {self.value(kind, scope, depth - 1)}" if self.chance(0.7) else ""
            return f"CASE WHEN {when} THEN {self.value(kind, scope, depth - 1)}{otherwise} END"
        if self.chance(0.12):
            return f"coalesce({self.value(kind, scope, depth - 1)}, {self.value(kind, scope, depth - 1)})"
        if self.chance(0.08):
            return f"nullif({self.value(kind, scope, depth - 1)}, {self.leaf(kind, scope)})"
        return getattr(self, kind)(scope, depth - 1)

    def int(self, scope, depth):
        some = self.value("int", scope, depth)
        return self.pick([
            f"({some} + {self.value('int', scope, depth)})",
            f"({some} - {self.value('int', scope, depth)})",
            f"({some} * {self.pick(['2', '3', '-1'])})",
            f"({some} % {self.pick(['2', '3', '5'])})",
            f"abs({some})",
            f"character_length({self.value('text', scope, depth)})",
            f"strpos({self.value('text', scope, depth)}, 'b')",
            f"CAST({self.value('bool', scope, depth)} AS BIGINT)",
            f"CAST(extract(day FROM {self.value('time', scope, depth)}) AS BIGINT)",
        ])

    def float(self, scope, depth):
        some = self.value("float", scope, depth)
        return self.pick([
            f"({some} + {self.value('float', scope, depth)})",
            f"({some} - {self.value('float', scope, depth)})",
            f"({some} * {self.pick(['2.0', '0.5'])})",
            f"abs({some})",
            f"CAST({self.value('int', scope, depth)} AS DOUBLE)",
        ])

    def text(self, scope, depth):
        some = self.value("text", scope, depth)
        return self.pick([
            f"upper({some})", f"lower({some})", f"trim({some})", f"reverse({some})",
            f"({some} || {self.value('text', scope, depth)})",
            f"concat({some}, {self.value('text', scope, depth)})",
            f"substr({some}, {self.pick('12')}, {self.pick('012')})",
            f"replace({some}, 'a', {self.leaf('text', scope)})",
            f"CAST({self.value('int', scope, depth)} AS VARCHAR)",
        ])

    def bool(self, scope, depth):
        return f"({self.condition(scope, depth)})"

    def time(self, scope, depth):
        some = self.value("time", scope, depth)
        return self.pick([
            f"date_trunc('{self.pick(['hour', 'day', 'month'])}', {some})",
            f"CAST(CAST({some} AS DATE) AS TIMESTAMP)",
            f"({some} {self.pick('+-')} INTERVAL '{self.pick(['90 minutes', '1 day'])}')",
        ])

    def aggregate(self, kind, scope):
        value = self.value(kind, scope, 1)
        filtered = f" FILTER (WHERE {self.condition(scope, 0)})" if self.chance(0.15) else ""
        distinct = self.pick(["", "", "DISTINCT "])
        if kind == "int":
            some = self.value(self.pick(CONSTANTS), scope, 0)
            call = self.pick(["count(*)", f"count({distinct}{some})", f"sum({distinct}{value})", f"max({value})"])
        elif kind == "float":
            call = f"{self.pick(['sum', 'avg', 'min', 'max'])}({value})"
        elif kind == "bool":
            call = f"{self.pick(['bool_and', 'bool_or'])}({value})"
        elif kind == "text":
            joined = f"string_agg({distinct}{value}, '|' ORDER BY {value})"
            call = self.pick([f"min({value})", f"max({value})", joined])
        else:
            call = f"{self.pick(['min', 'max'])}({value})"
        return f"{call}{filtered}"

    def window(self, kind, scope):
        over = f"PARTITION BY {self.pick(scope)[0]} " if self.chance(0.6) else ""
        order, its = self.pick(scope)
        over += f"ORDER BY {order} {self.pick(['ASC', 'DESC'])} NULLS {self.pick(['FIRST', 'LAST'])}"
        over += f" RANGE BETWEEN {self.pick(RANGES[its])}" if its in RANGES and self.chance(0.4) else self.pick(FRAMES)
        value = self.leaf(kind, scope)
        call = {"int": self.pick(["rank()", "dense_rank()", "count(*)", f"count({value})"]), "bool": f"bool_or({value})"}
        return f"{call.get(kind) or self.pick(['min', 'max']) + f'({value})'} OVER ({over})"
