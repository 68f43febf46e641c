use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{TableFactor, Visit, Visitor};

use super::*;

fn printed(sql: &str) -> String {
    parse(sql)
        .unwrap_or_else(|error| panic!("{sql}: {error}"))
        .to_string()
}

fn refusal(sql: &str) -> Error {
    match parse(sql).and_then(|mut statement| clauses(&mut statement)) {
        Ok(clauses) => panic!("{sql}: {clauses:?}"),
        Err(error) => error,
    }
}

/// The version clauses of every table factor, in order.
fn clauses(statement: &mut Statement) -> Result<Vec<(String, VersionClause)>> {
    struct Collect(Vec<(String, VersionClause)>);
    impl Visitor for Collect {
        type Break = Error;
        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Error> {
            match version_of(factor) {
                Err(error) => return ControlFlow::Break(error),
                Ok(None) => {}
                Ok(Some(clause)) => {
                    let TableFactor::Table { name, alias, .. } = factor else {
                        unreachable!()
                    };
                    let alias = alias
                        .as_ref()
                        .map_or(String::new(), |alias| format!(" {alias}"));
                    self.0.push((format!("{name}{alias}"), clause));
                }
            }
            ControlFlow::Continue(())
        }
    }
    let mut collect = Collect(Vec::new());
    match sql_statement_mut(statement).map(|statement| statement.visit(&mut collect)) {
        Some(ControlFlow::Break(error)) => Err(error),
        _ => Ok(collect.0),
    }
}

fn shown(clause: &VersionClause) -> String {
    let mut out = Vec::new();
    for (name, value) in [
        ("system", &clause.system),
        ("valid", &clause.valid),
        ("version", &clause.version),
    ] {
        if let Some(value) = value {
            out.push(format!("{name}={value}"));
        }
    }
    out.join(" ")
}

/// Spelling and meaning.
const SPELLINGS: &[(&str, &str)] = &[
    ("FOR SYSTEM_TIME AS OF '2026-01-01'", "system='2026-01-01'"),
    ("for system_time as of '2026-01-01'", "system='2026-01-01'"),
    ("FOR TIMESTAMP AS OF '2026-01-01'", "system='2026-01-01'"),
    (
        "FOR /* which? */ TIMESTAMP\n AS OF TIMESTAMP '2026-01-01'",
        "system=TIMESTAMP '2026-01-01'",
    ),
    ("TIMESTAMP AS OF '2026-01-01'", "system='2026-01-01'"),
    ("SYSTEM_TIME AS OF '2026-01-01'", "system='2026-01-01'"),
    ("AT (TIMESTAMP => '2026-01-01')", "system='2026-01-01'"),
    (
        "AT(TIMESTAMP => TIMESTAMP '2026-01-01' - INTERVAL '1 day')",
        "system=TIMESTAMP '2026-01-01' - INTERVAL '1 day'",
    ),
    ("FOR VALID_TIME AS OF $1", "valid=$1"),
    ("FOR VALID_TIME AS OF ?", "valid=$1"),
    (
        "VALID_TIME AS OF DATE '2026-01-01'",
        "valid=DATE '2026-01-01'",
    ),
    (
        "FOR VALID_TIME AS OF $1 FOR SYSTEM_TIME AS OF $2",
        "system=$2 valid=$1",
    ),
    (
        "FOR SYSTEM_TIME AS OF ? FOR VALID_TIME AS OF ?",
        "system=$1 valid=$2",
    ),
    (
        "FOR VALID_TIME AS OF now() - INTERVAL '1 day' TIMESTAMP AS OF now()",
        "system=now() valid=now() - INTERVAL '1 day'",
    ),
    (
        "TIMESTAMP AS OF '2026-01-01' FOR VALID_TIME AS OF '2025-01-01'",
        "system='2026-01-01' valid='2025-01-01'",
    ),
    (
        "AT (TIMESTAMP => $1) FOR VALID_TIME AS OF $2",
        "system=$1 valid=$2",
    ),
    (
        "FOR VALID_TIME AS OF $2 AT (TIMESTAMP => $1)",
        "system=$1 valid=$2",
    ),
    (
        "AT (VALID_TIME => f(1, (2)), SYSTEM_TIME => $1)",
        "system=$1 valid=f(1, (2))",
    ),
    (
        "FOR SYSTEM_TIME AS OF '2026-01-01' AT TIME ZONE 'UTC'",
        "system='2026-01-01' AT TIME ZONE 'UTC'",
    ),
    (
        "FOR SYSTEM_TIME AS OF CASE WHEN $1 THEN now() ELSE '2026-01-01' END",
        "system=CASE WHEN $1 THEN now() ELSE '2026-01-01' END",
    ),
    (
        "FOR VALID_TIME AS OF '2026-01-01'::timestamp",
        "valid='2026-01-01'::TIMESTAMP",
    ),
    (
        "FOR VALID_TIME AS OF date_trunc('day', now()) - INTERVAL '1' DAY",
        "valid=date_trunc('day', now()) - INTERVAL '1' DAY",
    ),
    ("VERSION AS OF 123", "version=123"),
    ("VERSION AS OF 'tag'", "version='tag'"),
    ("VERSION AS OF ?", "version=$1"),
    ("FOR VERSION AS OF 'tag'", "version='tag'"),
    ("FOR SYSTEM_VERSION AS OF 7", "version=7"),
    ("AT (VERSION => 3)", "version=3"),
    ("AT (TAG => 'x')", "version='x'"),
    (
        "FOR VERSION AS OF 3 FOR VALID_TIME AS OF now()",
        "valid=now() version=3",
    ),
];

/// Where a clause may stand: `@` is the clause, and the table's name follows.
const POSITIONS: &[(&str, &str)] = &[
    ("SELECT * FROM t @", "t"),
    ("SELECT * FROM t @;", "t"),
    ("SELECT * FROM features.t @ WHERE x > 1", "features.t"),
    ("SELECT * FROM \"T x\" @ c", "\"T x\" c"),
    ("SELECT * FROM a.b.t @ AS c", "a.b.t AS c"),
    ("SELECT * FROM t @ AS c (x, y)", "t AS c (x, y)"),
    ("SELECT * FROM s JOIN t @ c ON s.a = c.a", "t c"),
    ("SELECT * FROM t @ c JOIN s USING (a)", "t c"),
    ("SELECT * FROM t @, s", "t"),
    ("SELECT * FROM (t @ c)", "t c"),
    ("SELECT * FROM (s LEFT JOIN t @ ON true)", "t"),
    ("SELECT * FROM (SELECT a FROM t @) AS d", "t"),
    ("SELECT * FROM s WHERE a IN (SELECT a FROM t @)", "t"),
    ("SELECT (SELECT max(a) FROM t @ c) FROM s", "t c"),
    ("WITH d AS (SELECT * FROM t @) SELECT * FROM d", "t"),
    ("SELECT 1 UNION ALL SELECT a FROM t @ ORDER BY 1", "t"),
    (
        "SELECT a FROM t @ GROUP BY a HAVING count(*) > 1 LIMIT 3",
        "t",
    ),
    (
        "SELECT * FROM l ASOF JOIN t @ c MATCH_CONDITION (l.ts >= c.ts) ON l.k = c.k",
        "t c",
    ),
    (
        "SELECT * FROM l ASOF JOIN t @ MATCH_CONDITION (l.ts >= t.ts) USING (k)",
        "t",
    ),
    (
        "SELECT * FROM t @ ASOF JOIN r MATCH_CONDITION (t.ts >= r.ts) USING (k)",
        "t",
    ),
    (
        "SELECT * FROM f((SELECT * FROM t @), 'g', a => 1) AS x",
        "t",
    ),
    ("EXPLAIN SELECT * FROM t @", "t"),
    ("EXPLAIN ANALYZE VERBOSE SELECT * FROM t @", "t"),
    ("CREATE OR REPLACE TEMP VIEW v AS SELECT * FROM t @", "t"),
    (
        "SELECT 'FOR TIMESTAMP AS OF', timestamp AS of FROM t @ -- FOR VALID_TIME AS OF 1",
        "t",
    ),
];

#[test]
fn every_spelling_in_every_position_is_kept() {
    for (spelling, meaning) in SPELLINGS {
        for (text, table) in POSITIONS {
            let sql = text.replace('@', spelling);
            let mut statement = parse(&sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
            let found = clauses(&mut statement).unwrap_or_else(|error| panic!("{sql}: {error}"));
            let found: Vec<_> = found
                .iter()
                .map(|(table, clause)| (table.as_str(), shown(clause)))
                .collect();
            assert_eq!(found, [(*table, (*meaning).to_owned())], "{sql}");
            // What is printed means the same, except that an alias is printed before the clause.
            if !table.contains(' ') {
                let again = statement.to_string();
                assert_eq!(printed(&again), again, "{sql}");
            }
        }
    }
}

#[test]
fn several_clauses_in_one_statement() {
    for (first, first_meaning) in SPELLINGS
        .iter()
        .filter(|(text, _)| !text.contains(['?', '$']))
    {
        for (second, meaning) in SPELLINGS
            .iter()
            .filter(|(text, _)| !text.contains(['?', '$']))
        {
            let sql = format!(
                "WITH c AS (SELECT * FROM a {first}) SELECT * FROM c, a {second} JOIN a {first} AS b \
                 ON EXISTS (SELECT 1 FROM d {second} e)"
            );
            let mut statement = parse(&sql).unwrap();
            let found = clauses(&mut statement).unwrap();
            let found: Vec<_> = found
                .iter()
                .map(|(table, clause)| (table.as_str(), shown(clause)))
                .collect();
            let expected = [
                ("a", first_meaning),
                ("a", meaning),
                ("a AS b", first_meaning),
                ("d e", meaning),
            ]
            .map(|(table, meaning)| (table, (*meaning).to_owned()));
            assert_eq!(found, expected, "{sql}");
        }
    }
}

#[test]
fn clauses_that_cannot_be_kept_are_refused() {
    for (sql, part) in [
        (
            "SELECT * FROM t FOR SYSTEM_TIME AS OF 1 FOR SYSTEM_TIME AS OF 2",
            "twice",
        ),
        (
            "SELECT * FROM t FOR SYSTEM_TIME AS OF 1 TIMESTAMP AS OF 2",
            "twice",
        ),
        (
            "SELECT * FROM t AT (TIMESTAMP => 1) FOR SYSTEM_TIME AS OF 2",
            "twice",
        ),
        (
            "SELECT * FROM t AT (TIMESTAMP => 1, SYSTEM_TIME => 2)",
            "twice",
        ),
        (
            "SELECT * FROM t FOR VALID_TIME AS OF 1 FOR VALID_TIME AS OF 2",
            "twice",
        ),
        (
            "SELECT * FROM t BEFORE (TIMESTAMP => 1)",
            "BEFORE(...) is not supported",
        ),
        (
            "SELECT * FROM t BEFORE(STATEMENT => 'x')",
            "BEFORE(...) is not supported",
        ),
        (
            "SELECT * FROM t AT (OFFSET => -60)",
            "AT(OFFSET => ...) is not supported",
        ),
        (
            "SELECT * FROM t AT (STATEMENT => 'x')",
            "AT(STATEMENT => ...) is not supported",
        ),
        (
            "SELECT * FROM t AT (TIMESTAMP => 1)(VALID_TIME => 2)",
            "a version is written",
        ),
        (
            "SELECT * FROM t AT (TIMESTAMP => 1) OVER (ORDER BY 1)",
            "a version is written",
        ),
        ("SELECT * FROM t AT (DISTINCT TIMESTAMP => 1)", ""),
        ("SELECT * FROM t AT ()", "AT(TIMESTAMP => x)"),
        ("SELECT * FROM t AT (1)", "AT(TIMESTAMP => x)"),
        (
            "SELECT * FROM t CHANGES (INFORMATION => DEFAULT) AT (TIMESTAMP => 1)",
            "CHANGES",
        ),
        (
            "SELECT * FROM f FOR SYSTEM_TIME AS OF 1 (2)",
            "a version is written",
        ),
        (
            "SELECT * FROM t FOR SYSTEM_TIME BETWEEN 1 AND 2",
            "one point in time at Line: 1, Column: 33",
        ),
        (
            "SELECT * FROM t FOR SYSTEM_TIME FROM 1 TO 2",
            "one point in time",
        ),
        (
            "SELECT * FROM t c FOR SYSTEM_TIME AS OF 1",
            "before its alias; here it does not at Line: 1, Column: 19",
        ),
        (
            "SELECT * FROM t AS c FOR VALID_TIME AS OF 1",
            "before its alias",
        ),
        (
            "SELECT * FROM (SELECT 1) FOR VALID_TIME AS OF 1",
            "follows a table's name",
        ),
        (
            "SELECT * FROM latest('t') FOR VALID_TIME AS OF 1",
            "follows a table's name",
        ),
        ("SELECT a FOR VALID_TIME AS OF 1", "follows a table's name"),
        ("SELECT * FROM t FOR VALID_TIME AS OF", "syntax error"),
        (
            "SELECT *\nFROM t FOR VALID_TIME AS OF )",
            "Line: 2, Column: 29",
        ),
        (
            "SELECT * FROM t FOR VALID_TIME AS OF (SELECT 1 FROM u FOR VALID_TIME AS OF 2)",
            "",
        ),
    ] {
        let error = refusal(sql);
        assert!(error.message.contains(part), "{sql}: {error}");
        assert_eq!(error.kind, Kind::InvalidArgument, "{sql}");
    }
}

/// Words of version clauses keep their other meanings.
#[test]
fn words_are_left_alone() {
    for (sql, expected) in [
        (
            "SELECT timestamp AS of FROM t",
            "SELECT timestamp AS of FROM t",
        ),
        (
            "SELECT a, version AS of FROM t",
            "SELECT a, version AS of FROM t",
        ),
        (
            "SELECT DISTINCT version AS of FROM t",
            "SELECT DISTINCT version AS of FROM t",
        ),
        (
            "SELECT NOT version AS of FROM t",
            "SELECT NOT version AS of FROM t",
        ),
        (
            "SELECT t.timestamp AS of FROM t",
            "SELECT t.timestamp AS of FROM t",
        ),
        (
            "SELECT 1 FROM timestamp AS of",
            "SELECT 1 FROM timestamp AS of",
        ),
        (
            "SELECT 1 FROM a, version AS of",
            "SELECT 1 FROM a, version AS of",
        ),
        (
            "SELECT 1 FROM a JOIN version AS of ON true",
            "SELECT 1 FROM a JOIN version AS of ON true",
        ),
        (
            "SELECT \"FOR\", \"timestamp\" AS of FROM \"version\"",
            "SELECT \"FOR\", \"timestamp\" AS of FROM \"version\"",
        ),
        (
            "SELECT 'a VERSION AS OF ''x''' FROM t",
            "SELECT 'a VERSION AS OF ''x''' FROM t",
        ),
        (
            "SELECT timestamp '2026-01-01', valid_time, system_time FROM t",
            "SELECT TIMESTAMP '2026-01-01', valid_time, system_time FROM t",
        ),
        ("SELECT 1 FROM t at", "SELECT 1 FROM t at"),
        (
            "SELECT 1 FROM t before, t changes WHERE before.x = changes.x",
            "SELECT 1 FROM t before, t changes WHERE before.x = changes.x",
        ),
        (
            "SELECT 1 FROM t AS at JOIN s AS before ON true",
            "SELECT 1 FROM t AS at JOIN s AS before ON true",
        ),
        (
            "SELECT at, at.x, \"at\" FROM t \"at\"",
            "SELECT at, at.x, \"at\" FROM t \"at\"",
        ),
        (
            "SELECT ts AT TIME ZONE 'UTC' at FROM t",
            "SELECT ts AT TIME ZONE 'UTC' AS at FROM t",
        ),
        (
            "SELECT substring(a FROM 1 FOR 2) FROM t",
            "SELECT SUBSTRING(a FROM 1 FOR 2) FROM t",
        ),
    ] {
        assert_eq!(printed(sql), expected);
        assert!(
            clauses(&mut parse(sql).unwrap()).unwrap().is_empty(),
            "{sql}"
        );
    }
}

#[test]
fn parameters_are_numbered() {
    assert_eq!(
        printed("SELECT ?, a[?], '?' FROM t WHERE x = ? -- ?"),
        "SELECT $1, a[$2], '?' FROM t WHERE x = $3"
    );
    assert_eq!(printed("SELECT $2, $1"), "SELECT $2, $1");
    for (sql, part) in [
        (
            "SELECT ?, $1",
            "both are used, the second kind at Line: 1, Column: 11",
        ),
        ("SELECT $1, ?", "both are used"),
        ("SELECT $0", "parameter $0"),
        ("SELECT $name", "parameter $name"),
        ("SELECT ?1", "parameter ?1"),
        ("SELECT $10001", "parameter $10001"),
        ("SELECT $99999999999999999999", "parameter $9"),
        ("SELECT :name", "parameter :name"),
    ] {
        let error = refusal(sql);
        assert!(error.message.contains(part), "{sql}: {error}");
    }
}

#[test]
fn one_statement() {
    assert_eq!(printed(";; SELECT 1;"), "SELECT 1");
    for (sql, part) in [
        ("", "no statement"),
        (" -- nothing\n;", "no statement"),
        ("SELECT 1; SELECT 2", "2 statements"),
        (
            "SELECT 1 SELECT 2",
            "end of statement, found: SELECT at Line: 1, Column: 10",
        ),
        (
            "SELECT 'open",
            "Unterminated string literal at Line: 1, Column: 8",
        ),
        ("SELECT a\n  FROM", "found: EOF"),
        (
            "SELECT * FROM l LEFT ASOF JOIN r MATCH_CONDITION (a >= b)",
            "after LEFT",
        ),
    ] {
        let error = refusal(sql);
        assert!(error.message.contains(part), "{sql}: {error}");
        assert!(!error.message.contains("sql parser error"), "{error}");
        assert_eq!(error.kind, Kind::InvalidArgument);
    }
}

#[test]
fn statements_beside_queries() {
    for (sql, expected) in [
        ("DESCRIBE features.customers", "DESCRIBE features.customers"),
        ("DESC customers", "DESC customers"),
        ("SHOW TABLES", "SHOW TABLES"),
        ("SHOW TABLES FROM history", "SHOW TABLES FROM history"),
        ("SHOW COLUMNS FROM customers", "SHOW COLUMNS FROM customers"),
        (
            "SHOW COLUMNS IN features.customers",
            "SHOW COLUMNS IN features.customers",
        ),
        ("SHOW SCHEMAS", "SHOW SCHEMAS"),
        ("show schemas like 'f%'", "SHOW SCHEMAS LIKE 'f%'"),
        ("EXPLAIN SELECT 1", "EXPLAIN SELECT 1"),
        ("EXPLAIN ANALYZE SELECT 1", "EXPLAIN ANALYZE SELECT 1"),
        ("EXPLAIN (ANALYZE) SELECT 1", "EXPLAIN ANALYZE SELECT 1"),
        (
            "SET featureflight.system_time = '2026-01-01'",
            "SET featureflight.system_time = '2026-01-01'",
        ),
        (
            "SET featureflight.system_time TO '2026-01-01'",
            "SET featureflight.system_time = '2026-01-01'",
        ),
        (
            "SET featureflight.system_time = NULL",
            "SET featureflight.system_time = NULL",
        ),
        (
            "SET featureflight.system_time = DEFAULT",
            "SET featureflight.system_time = DEFAULT",
        ),
        (
            "SET featureflight.system_time TO DEFAULT",
            "SET featureflight.system_time = DEFAULT",
        ),
        (
            "SET featureflight.valid_time = $1",
            "SET featureflight.valid_time = $1",
        ),
        (
            "SHOW featureflight.system_time",
            "SHOW featureflight system_time",
        ),
        (
            "RESET featureflight.system_time",
            "RESET featureflight.system_time",
        ),
        ("USE history", "USE history"),
        (
            "CREATE TEMP VIEW v AS SELECT 1",
            "CREATE TEMPORARY VIEW v AS SELECT 1",
        ),
        (
            "CREATE OR REPLACE TEMPORARY VIEW v (a, b) AS SELECT 1, 2",
            "CREATE OR REPLACE TEMPORARY VIEW v (a, b) AS SELECT 1, 2",
        ),
        ("DROP VIEW IF EXISTS v", "DROP VIEW IF EXISTS v"),
    ] {
        assert_eq!(printed(sql), expected);
    }
}

#[test]
fn asof_joins_are_folded() {
    let asof =
        |l: &str, r: &str| format!("({l} ASOF JOIN {r} MATCH_CONDITION ({r}.x >= 1) USING(k))");
    for (sql, expected) in [
        (
            "SELECT * FROM l @r",
            format!("SELECT * FROM {}", asof("l", "r")),
        ),
        (
            "SELECT * FROM l @r, m @n",
            format!("SELECT * FROM {}, {}", asof("l", "r"), asof("m", "n")),
        ),
        (
            "SELECT * FROM l @r @s",
            format!("SELECT * FROM {}", asof(&asof("l", "r"), "s")),
        ),
        (
            "SELECT * FROM a JOIN b ON true @r",
            format!("SELECT * FROM {}", asof("(a JOIN b ON true)", "r")),
        ),
        (
            "SELECT * FROM l @r JOIN b ON true",
            format!("SELECT * FROM {} JOIN b ON true", asof("l", "r")),
        ),
        (
            "SELECT * FROM l @r JOIN b ON true @s CROSS JOIN z",
            format!(
                "SELECT * FROM {} CROSS JOIN z",
                asof(&format!("({} JOIN b ON true)", asof("l", "r")), "s")
            ),
        ),
        (
            "SELECT * FROM (l @r)",
            format!("SELECT * FROM {}", asof("l", "r")),
        ),
        (
            "SELECT * FROM (l @r) AS x",
            format!("SELECT * FROM {} AS x", asof("l", "r")),
        ),
        (
            "SELECT * FROM (l @r @s) AS x",
            format!("SELECT * FROM {} AS x", asof(&asof("l", "r"), "s")),
        ),
        (
            "SELECT * FROM (a JOIN b ON true @r) x",
            format!("SELECT * FROM {} x", asof("(a JOIN b ON true)", "r")),
        ),
        (
            "SELECT * FROM a JOIN (l @r @s) ON true",
            format!(
                "SELECT * FROM a JOIN {} ON true",
                asof(&asof("l", "r"), "s")
            ),
        ),
        (
            "SELECT (SELECT 1 FROM l @r)",
            format!("SELECT (SELECT 1 FROM {})", asof("l", "r")),
        ),
        (
            "WITH c AS (SELECT 1 FROM l @r) SELECT 2",
            format!("WITH c AS (SELECT 1 FROM {}) SELECT 2", asof("l", "r")),
        ),
        (
            "SELECT 1 UNION SELECT 1 FROM l @r",
            format!("SELECT 1 UNION SELECT 1 FROM {}", asof("l", "r")),
        ),
        (
            "EXPLAIN SELECT 1 FROM l @r",
            format!("EXPLAIN SELECT 1 FROM {}", asof("l", "r")),
        ),
        (
            "CREATE TEMP VIEW v AS SELECT 1 FROM l @r",
            format!(
                "CREATE TEMPORARY VIEW v AS SELECT 1 FROM {}",
                asof("l", "r")
            ),
        ),
        (
            "SELECT * FROM f((SELECT 1 FROM l @r))",
            format!("SELECT * FROM f((SELECT 1 FROM {}))", asof("l", "r")),
        ),
    ] {
        // `@r` is an as-of join with `r`.
        let mut text = String::new();
        for (number, part) in sql.split('@').enumerate() {
            if number == 0 {
                text += part;
            } else {
                let (name, rest) = part.split_at(1);
                text +=
                    &format!("ASOF JOIN {name} MATCH_CONDITION ({name}.x >= 1) USING (k){rest}");
            }
        }
        assert_eq!(printed(&text), expected, "{text}");
        assert_eq!(printed(&expected), expected);
        assert_eq!(asof_joins(&text), sql.matches('@').count(), "{text}");
    }
}

/// Counts the factors that are as-of joins; fails when one is left among ordinary joins.
fn asof_joins(sql: &str) -> usize {
    struct Count(usize);
    impl Visitor for Count {
        type Break = ();
        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
            if let Some(parts) = as_asof(factor) {
                self.0 += 1;
                assert_eq!(
                    parts.match_condition.to_string(),
                    format!("{}.x >= 1", parts.right)
                );
                assert!(matches!(parts.constraint, ast::JoinConstraint::Using(_)));
            }
            ControlFlow::Continue(())
        }
        fn pre_visit_select(&mut self, select: &ast::Select) -> ControlFlow<()> {
            for join in select.from.iter().flat_map(|table| &table.joins) {
                assert!(!matches!(
                    join.join_operator,
                    ast::JoinOperator::AsOf { .. }
                ));
            }
            ControlFlow::Continue(())
        }
    }
    let mut count = Count(0);
    let mut statement = parse(sql).unwrap();
    let _ = sql_statement_mut(&mut statement).unwrap().visit(&mut count);
    count.0
}

fn limit(sql: &str) -> Option<Kind> {
    parse(sql).err().map(|error| error.kind)
}

#[test]
fn chains_are_bounded() {
    let chain =
        |operator: &str, terms: usize| format!("SELECT {}", vec!["a"; terms].join(operator));
    for operator in [
        " + ", " OR ", " AND ", "||", " = ", " * ", "::", " -> ", " & ",
    ] {
        assert_eq!(limit(&chain(operator, 450)), None, "{operator}");
        assert_eq!(
            limit(&chain(operator, 520)),
            Some(Kind::ResourceExhausted),
            "{operator}"
        );
    }
    let terms = |count: usize| vec!["(a = 1 AND b <> -2)"; count].join(" OR ");
    assert_eq!(
        limit(&format!("SELECT * FROM t WHERE {}", terms(450))),
        None
    );
    assert_eq!(
        limit(&format!("SELECT * FROM t WHERE {}", terms(520))),
        Some(Kind::ResourceExhausted)
    );
    // Runs inside runs add up.
    let inner = vec!["a"; 300].join(" + ");
    let nested = format!("SELECT {} + ({inner})", vec!["a"; 300].join(" + "));
    assert_eq!(limit(&nested), Some(Kind::ResourceExhausted));
    assert_eq!(
        limit(&format!("SELECT a{}", "[1]".repeat(520))),
        Some(Kind::ResourceExhausted)
    );
    // Width is not depth.
    let wide = format!(
        "SELECT a IN ({}), {}",
        vec!["-1"; 20_000].join(", "),
        vec!["a + b * c"; 2_000].join(", ")
    );
    assert_eq!(limit(&wide), None);
    let cases = format!(
        "SELECT CASE {} END",
        "WHEN a = 1 AND b = 2 THEN 3 ".repeat(2_000)
    );
    assert_eq!(limit(&cases), None);
}

#[test]
fn sizes_are_bounded() {
    let arms = |count: usize| vec!["SELECT a + 1 FROM t"; count].join(" UNION ALL ");
    assert_eq!(limit(&arms(250)), None);
    assert_eq!(limit(&arms(300)), Some(Kind::ResourceExhausted));
    let tables = |count: usize| format!("SELECT 1 FROM {}", vec!["t"; count].join(", "));
    assert_eq!(limit(&tables(256)), None);
    assert_eq!(limit(&tables(257)), Some(Kind::ResourceExhausted));
    assert_eq!(
        limit(&format!("SELECT 1 FROM t {}", "CROSS JOIN t ".repeat(300))),
        Some(Kind::ResourceExhausted)
    );
    assert_eq!(
        limit(&format!("SELECT '{}'", "x".repeat(limits::MAX_TEXT_BYTES))),
        Some(Kind::ResourceExhausted)
    );
    assert_eq!(
        limit(&format!("SELECT ({})", vec!["1"; 60_000].join(","))),
        Some(Kind::ResourceExhausted)
    );
}

/// Each by a statement that nothing else refuses.
#[test]
fn what_multiplies_is_bounded() {
    let list = |item: &str, count: usize| vec![item; count].join(", ");
    let wildcards = |item: &str, count| format!("SELECT {} FROM t", list(item, count));
    let most = limits::MAX_WILDCARDS;
    let calls = |call: &str, count| format!("SELECT {}", list(call, count));
    for (fits, beyond, words) in [
        (wildcards("*", most), wildcards("*", most + 1), "wildcards"),
        (
            wildcards("t.*", most),
            wildcards("t.*", most + 1),
            "wildcards",
        ),
        (
            "SELECT CAST(NULL AS INT[8192])".to_owned(),
            "SELECT CAST(NULL AS INT[8193])".to_owned(),
            "elements",
        ),
        (
            "SELECT CAST(NULL AS INT[64][128])".to_owned(),
            "SELECT CAST(NULL AS INT[64][129])".to_owned(),
            "elements",
        ),
        (
            "SELECT CAST(NULL AS STRUCT<a INT[4096], b INT[4096]>)".to_owned(),
            "SELECT CAST(NULL AS STRUCT<a INT[4096], b INT[4097]>)".to_owned(),
            "elements",
        ),
        (
            calls("max(a)", limits::MAX_AGGREGATES),
            calls("max(a)", limits::MAX_AGGREGATES + 1),
            "aggregate functions",
        ),
        (
            calls("f(a) OVER ()", limits::MAX_AGGREGATES),
            calls("f(a) OVER ()", limits::MAX_AGGREGATES + 1),
            "aggregate functions",
        ),
    ] {
        assert_eq!(limit(&fits), None, "{words}: {fits}");
        let refused = parse(&beyond).map(|_| ()).expect_err(words);
        assert_eq!(refused.kind, Kind::ResourceExhausted, "{refused}");
        assert!(refused.message.contains(words), "{refused}");
    }
}

/// Nesting ends in an error, not in a stack overflow.
#[test]
fn nesting_is_bounded() {
    for (open, middle, close) in [
        ("SELECT (", "1", ")"),
        ("SELECT - ", "1", ""),
        ("SELECT [", "1", "]"),
        ("SELECT f(", "1", ")"),
        ("SELECT (SELECT ", "1", ")"),
    ] {
        for depth in [60, 5_000] {
            let (head, open) = open.split_once(' ').unwrap();
            let sql = format!(
                "{head} {}{middle}{}",
                open.repeat(depth),
                close.repeat(depth)
            );
            assert_eq!(
                limit(&sql),
                Some(Kind::ResourceExhausted),
                "{open} {:?}",
                parse(&sql)
            );
        }
    }
    for (head, open, middle, close) in [
        ("SELECT ", "NOT ", "1", ""),
        ("SELECT ", "CAST(", "1", " AS INT)"),
        ("SELECT ", "CASE WHEN ", "1", " THEN 1 END"),
        ("SELECT CAST(1 AS ", "ARRAY<", "INT", ">)"),
        ("SELECT CAST(1 AS ", "STRUCT<a ", "INT", ">)"),
        ("SELECT CAST(1 AS ", "MAP<INT, ", "INT", ">)"),
        ("SELECT CAST(1 AS ", "Nullable(", "INT", "))"),
        ("SELECT CAST(1 AS ", "INT", "", "[])"),
        ("SELECT CAST(1 AS INT", "[]", "", ")"),
        ("", "EXPLAIN ", "SELECT 1", ""),
        ("", "EXPLAIN ANALYZE ", "SELECT 1", ""),
        ("", "DESCRIBE ", "SELECT 1", ""),
        ("", "PREPARE a AS ", "SELECT 1", ""),
        ("", "WITH a AS (", "SELECT 1", ") SELECT 1"),
        ("SELECT * FROM ", "(", "t", ")"),
        ("SELECT * FROM ", "(SELECT * FROM ", "t", ")"),
        ("SELECT * FROM ", "LATERAL (SELECT * FROM ", "t", ")"),
        ("SELECT * FROM ", "(t JOIN ", "t", " ON true)"),
        ("SELECT * FROM t ", "PIVOT(sum(a) FOR b IN (1)) ", "", ""),
        ("SELECT * FROM t MATCH_RECOGNIZE(PATTERN (", "(", "a", ")"),
        ("SELECT ", "x -> ", "1", ""),
        ("SELECT ", "a.", "b", ""),
        ("SELECT a", "::INT", "", ""),
        ("SELECT a", " AT TIME ZONE 'UTC'", "", ""),
        ("SELECT a", " IS NULL", "", ""),
        ("SELECT a", " -> 'b'", "", ""),
        ("SELECT ", "INTERVAL ", "1", ""),
        ("SELECT ", "{'a': ", "1", "}"),
        ("SELECT ", "a IN (", "1", ")"),
        ("SELECT ", "EXISTS (SELECT ", "1", ")"),
        ("SELECT 1 WHERE ", "a = ANY(", "1", ")"),
        ("SELECT ", "a NOT LIKE ", "1", ""),
        ("SELECT ", "a IS DISTINCT FROM ", "1", ""),
        ("SELECT a ", "UNION SELECT 1 ", "", ""),
        ("", "(", "SELECT 1", ") UNION SELECT 1"),
        ("FROM t ", "|> WHERE true ", "", ""),
    ] {
        for depth in [10, 30, 49, 60, 1_000, 20_000] {
            for (middle, close) in [(middle, close), (middle, ""), ("!", close)] {
                // Seen when the process dies of it.
                println!("{head}{open}{middle}{close} x {depth}");
                let started = std::time::Instant::now();
                let sql = format!(
                    "{head}{}{middle}{}",
                    open.repeat(depth),
                    close.repeat(depth)
                );
                let error = parse(&sql).err();
                assert!(
                    started.elapsed().as_secs() < 20,
                    "{head}{open}{middle}{close} x {depth}: {:?} {error:?}",
                    started.elapsed()
                );
            }
        }
    }
}
