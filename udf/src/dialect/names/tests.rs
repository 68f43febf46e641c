use std::collections::BTreeMap;

use super::super::{parse, sql_statement_mut};
use super::*;

/// A catalog of a few tables; `features` is the default schema.
struct Source(BTreeMap<(&'static str, &'static str), Vec<&'static str>>);

fn source() -> Source {
    Source(BTreeMap::from([
        (
            ("features", "Customers"),
            vec!["CustomerId", "EventTime", "Age", "plan"],
        ),
        (
            ("features", "orders"),
            vec!["customerid", "EventTime", "Total", "items"],
        ),
        (("features", "Twin"), vec!["Key", "key", "x"]),
        (("features", "same"), vec!["a"]),
        (("features", "SAME"), vec!["a"]),
        (("features", "my-group"), vec!["Id", "info"]),
        (
            ("history", "Customers"),
            vec!["CustomerId", "EventTime", "Age", "plan", "write_time"],
        ),
        (("temp", "labels"), vec!["customer_id", "ts", "Label"]),
        (("system", "files"), vec!["path"]),
    ]))
}

impl NameSource for Source {
    fn table(&self, name: &ObjectName) -> Result<Option<ResolvedTable>> {
        let mut parts: Vec<Ident> = name
            .0
            .iter()
            .map(|part| part.as_ident().unwrap().clone())
            .collect();
        if let [one] = parts.as_slice()
            && let Some((schema, table)) = one.value.split_once('.')
        {
            parts = vec![
                Ident::with_quote('"', schema),
                Ident::with_quote('"', table),
            ];
        }
        if parts.len() == 3 && parts.remove(0).value.to_lowercase() != "featureflight" {
            return Ok(None);
        }
        let schemas = match parts.len() {
            1 => vec![Ident::new("temp"), Ident::new("features")],
            _ => vec![parts.remove(0)],
        };
        for schema in schemas {
            let found: Vec<_> = self
                .0
                .iter()
                .filter(|((of, table), _)| {
                    let underscored = parts[0].quote_style.is_none()
                        && table
                            .replace('-', "_")
                            .eq_ignore_ascii_case(&parts[0].value);
                    matches(&schema, of) && (matches(&parts[0], table) || underscored)
                })
                .collect();
            match found.as_slice() {
                [] => {}
                [((schema, table), columns)] => {
                    return Ok(Some(ResolvedTable {
                        schema: (*schema).to_owned(),
                        table: (*table).to_owned(),
                        columns: columns.iter().map(|name| (*name).to_owned()).collect(),
                    }));
                }
                several => {
                    let forms: Vec<_> = several
                        .iter()
                        .map(|((_, table), _)| format!("\"{table}\""))
                        .collect();
                    return Err(Error::invalid(format!("{name} is {}", forms.join(" or "))));
                }
            }
        }
        Ok(None)
    }

    fn function(
        &self,
        name: &str,
        args: &[ast::FunctionArg],
        spine: Option<&[String]>,
    ) -> Result<Option<Vec<String>>> {
        Ok(match name {
            "point_in_time_join" => {
                assert!(args.len() > 1);
                let mut columns = spine.unwrap().to_vec();
                columns.extend(["Age".to_owned(), "Total".to_owned()]);
                Some(columns)
            }
            "latest" => Some(vec!["CustomerId".to_owned(), "Age".to_owned()]),
            _ => None,
        })
    }
}

fn rewritten(sql: &str) -> Result<String> {
    let mut statement = parse(sql)?;
    rewrite(sql_statement_mut(&mut statement).unwrap(), &source())?;
    let text = statement.to_string();
    // Twice is once.
    rewrite(sql_statement_mut(&mut statement).unwrap(), &source())?;
    assert_eq!(statement.to_string(), text, "{sql}");
    Ok(text)
}

fn check(cases: &[(&str, &str)]) {
    let mut wrong = String::new();
    for (sql, expected) in cases {
        let found = rewritten(sql).unwrap_or_else(|error| format!("error: {error}"));
        if found != *expected {
            wrong += &format!("\n{sql}\n  expected {expected}\n  found    {found}\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

fn refuse(cases: &[(&str, &str)]) {
    for (sql, part) in cases {
        let error = rewritten(sql).expect_err(sql);
        assert!(error.message.contains(part), "{sql}: {error}");
        assert_eq!(error.kind, Kind::InvalidArgument, "{sql}");
    }
}

#[test]
fn tables_and_columns() {
    check(&[
        (
            "SELECT age FROM customers",
            r#"SELECT "Age" FROM "features"."Customers""#,
        ),
        (
            "SELECT AGE, eventtime AS EventTime FROM CUSTOMERS",
            r#"SELECT "Age", "EventTime" AS EventTime FROM "features"."Customers""#,
        ),
        (
            r#"SELECT "Age", "age" FROM "Customers""#,
            r#"SELECT "Age", "age" FROM "features"."Customers""#,
        ),
        (
            r#"SELECT age FROM "customers""#,
            r#"SELECT age FROM "customers""#,
        ),
        (
            "SELECT age FROM history.customers",
            r#"SELECT "Age" FROM "history"."Customers""#,
        ),
        (
            "SELECT age FROM FeatureFlight.History.customers",
            r#"SELECT "Age" FROM "history"."Customers""#,
        ),
        (
            "SELECT age FROM elsewhere.history.customers",
            "SELECT age FROM elsewhere.history.customers",
        ),
        (
            "SELECT label FROM Labels",
            r#"SELECT "Label" FROM "temp"."labels""#,
        ),
        (
            "SELECT id FROM my_group",
            r#"SELECT "Id" FROM "features"."my-group""#,
        ),
        (
            "SELECT my_group.id, features.my_group.id FROM my_group",
            r#"SELECT "features"."my-group"."Id", "features"."my-group"."Id" FROM "features"."my-group""#,
        ),
        (
            r#"SELECT "features.Customers".age FROM "features.Customers""#,
            r#"SELECT "features"."Customers"."Age" FROM "features"."Customers""#,
        ),
        (
            "SELECT nothing FROM customers",
            r#"SELECT nothing FROM "features"."Customers""#,
        ),
        ("SELECT x FROM nowhere", "SELECT x FROM nowhere"),
        (
            "SELECT `age` FROM customers",
            r#"SELECT `age` FROM "features"."Customers""#,
        ),
        ("SELECT x FROM twin", r#"SELECT "x" FROM "features"."Twin""#),
        (
            r#"SELECT "Key", "key" FROM twin"#,
            r#"SELECT "Key", "key" FROM "features"."Twin""#,
        ),
    ]);
    refuse(&[
        (
            "SELECT key FROM twin",
            r#"key is ambiguous at Line: 1, Column: 8: write "features"."Twin"."Key" or "features"."Twin"."key""#,
        ),
        (
            "SELECT t.KEY FROM twin t",
            r#"write "t"."Key" or "t"."key""#,
        ),
        ("SELECT a FROM same", r#""SAME" or "same""#),
        (
            "SELECT 1\nFROM customers c JOIN orders o ON o.total > 1\nWHERE customerid = 3",
            r#"customerid is ambiguous at Line: 3, Column: 7: write "c"."CustomerId" or "o"."customerid""#,
        ),
    ]);
}

#[test]
fn qualifiers() {
    check(&[
        (
            "SELECT customers.Age FROM features.Customers",
            r#"SELECT "features"."Customers"."Age" FROM "features"."Customers""#,
        ),
        (
            "SELECT FEATURES.customers.age FROM customers",
            r#"SELECT "features"."Customers"."Age" FROM "features"."Customers""#,
        ),
        (
            "SELECT featureflight.features.customers.age FROM featureflight.features.customers",
            r#"SELECT "features"."Customers"."Age" FROM "features"."Customers""#,
        ),
        (
            "SELECT featureflight.features.customers.age FROM customers",
            r#"SELECT "features"."Customers"."Age" FROM "features"."Customers""#,
        ),
        (
            "SELECT C.AGE, c.\"Age\" FROM customers AS c",
            r#"SELECT "c"."Age", "c"."Age" FROM "features"."Customers" AS c"#,
        ),
        (
            r#"SELECT c.age, "C".age FROM customers "C""#,
            r#"SELECT "C"."Age", "C"."Age" FROM "features"."Customers" "C""#,
        ),
        (
            r#"SELECT "C".age FROM customers c"#,
            r#"SELECT "C".age FROM "features"."Customers" c"#,
        ),
        (
            "SELECT customers.age FROM customers c",
            r#"SELECT customers.age FROM "features"."Customers" c"#,
        ),
        (
            "SELECT c.AGE FROM customers AS c (One, Two, \"Age\", four)",
            r#"SELECT "c"."Age" FROM "features"."Customers" AS c (One, Two, "Age", four)"#,
        ),
        (
            "SELECT ONE, age FROM customers AS c (One, Two, Three, four)",
            r#"SELECT "one", age FROM "features"."Customers" AS c (One, Two, Three, four)"#,
        ),
        (
            "SELECT c.age FROM nowhere c, customers d",
            r#"SELECT "c".age FROM nowhere c, "features"."Customers" d"#,
        ),
        (
            "SELECT features.customers.age, history.customers.age FROM customers, history.customers",
            r#"SELECT "features"."Customers"."Age", "history"."Customers"."Age" FROM "features"."Customers", "history"."Customers""#,
        ),
        (
            "SELECT customers.write_time FROM customers, history.customers",
            r#"SELECT "history"."Customers"."write_time" FROM "features"."Customers", "history"."Customers""#,
        ),
    ]);
    refuse(&[
        (
            "SELECT customers.age FROM customers, history.customers",
            r#"customers.age is ambiguous at Line: 1, Column: 18: write "features"."Customers"."age" or "history"."Customers"."age""#,
        ),
        (
            "SELECT customers.* FROM customers, history.customers",
            "customers.* is ambiguous",
        ),
        (
            r#"SELECT 1 FROM history.customers, orders "Customers""#,
            r#""Customers" is a table and an alias"#,
        ),
    ]);
}

#[test]
fn fields_inside_columns() {
    check(&[
        (
            "SELECT info.Name, g.INFO.name, my_group.info.a.b FROM my_group g, my_group",
            r#"SELECT "info".Name, "g"."info".name, "features"."my-group"."info".a.b FROM "features"."my-group" g, "features"."my-group""#,
        ),
        (
            "SELECT INFO['Age'], g.info[1].age, (info).age, info[id] FROM my_group g",
            r#"SELECT "info"['Age'], "g"."info"[1].age, ("info").age, "info"["Id"] FROM "features"."my-group" g"#,
        ),
        (
            "SELECT my_group.INFO[1:2][id] FROM my_group",
            r#"SELECT "features"."my-group"."info"[1:2]["Id"] FROM "features"."my-group""#,
        ),
        (
            "SELECT d.name FROM (SELECT info.Name FROM my_group) d",
            r#"SELECT d.name FROM (SELECT "info".Name FROM "features"."my-group") d"#,
        ),
    ]);
}

#[test]
fn wildcards() {
    check(&[
        (
            "SELECT *, customers.*, FEATURES.CUSTOMERS.* FROM customers",
            r#"SELECT *, "features"."Customers".*, "features"."Customers".* FROM "features"."Customers""#,
        ),
        (
            "SELECT C.*, count(c.*) FROM customers c",
            r#"SELECT "c".*, count("c".*) FROM "features"."Customers" c"#,
        ),
        (
            "SELECT * EXCLUDE (age, PLAN) FROM customers",
            r#"SELECT * EXCLUDE ("Age", "plan") FROM "features"."Customers""#,
        ),
        (
            "SELECT * EXCLUDE age FROM customers",
            r#"SELECT * EXCLUDE "Age" FROM "features"."Customers""#,
        ),
        (
            "SELECT c.* EXCEPT (age, eventtime) FROM customers c, orders",
            r#"SELECT "c".* EXCEPT ("Age", "EventTime") FROM "features"."Customers" c, "features"."orders""#,
        ),
        (
            "SELECT * REPLACE (age + 1 AS age) FROM customers",
            r#"SELECT * REPLACE ("Age" + 1 AS "Age") FROM "features"."Customers""#,
        ),
        (
            "SELECT * RENAME (age AS Years) FROM customers",
            r#"SELECT * RENAME ("Age" AS Years) FROM "features"."Customers""#,
        ),
        (
            "SELECT AGE, YEARS FROM (SELECT * RENAME (age AS Years) FROM customers)",
            r#"SELECT AGE, "years" FROM (SELECT * RENAME ("Age" AS Years) FROM "features"."Customers")"#,
        ),
        (
            "SELECT AGE, PLAN FROM (SELECT * EXCLUDE (age) FROM customers)",
            r#"SELECT AGE, "plan" FROM (SELECT * EXCLUDE ("Age") FROM "features"."Customers")"#,
        ),
        (
            "SELECT d.AGE FROM (SELECT c.* FROM customers c JOIN orders o ON true) d",
            r#"SELECT "d"."Age" FROM (SELECT "c".* FROM "features"."Customers" c JOIN "features"."orders" o ON true) d"#,
        ),
    ]);
}

#[test]
fn names_of_the_query() {
    check(&[
        (
            "SELECT EventTime AS Foo FROM customers ORDER BY FOO",
            r#"SELECT "EventTime" AS Foo FROM "features"."Customers" ORDER BY "foo""#,
        ),
        (
            "SELECT eventtime FROM customers ORDER BY EVENTTIME DESC, age",
            r#"SELECT "EventTime" FROM "features"."Customers" ORDER BY "EventTime" DESC, "Age""#,
        ),
        (
            r#"SELECT age AS "Years" FROM customers ORDER BY years"#,
            r#"SELECT "Age" AS "Years" FROM "features"."Customers" ORDER BY "Years""#,
        ),
        (
            "SELECT age + 1 AS PLAN FROM customers ORDER BY plan",
            r#"SELECT "Age" + 1 AS PLAN FROM "features"."Customers" ORDER BY "plan""#,
        ),
        (
            "SELECT age AS Years, count(*) AS N FROM customers GROUP BY YEARS HAVING N > 1 AND AGE > 2 ORDER BY n",
            r#"SELECT "Age" AS Years, count(*) AS N FROM "features"."Customers" GROUP BY "years" HAVING "n" > 1 AND "Age" > 2 ORDER BY "n""#,
        ),
        // The relation's column wins in GROUP BY, the select list's in ORDER BY.
        (
            "SELECT plan AS Age FROM customers GROUP BY age ORDER BY AGE",
            r#"SELECT "plan" AS Age FROM "features"."Customers" GROUP BY "Age" ORDER BY "age""#,
        ),
        (
            "SELECT EVENTTIME FROM (SELECT eventtime FROM customers) d",
            r#"SELECT "EventTime" FROM (SELECT "EventTime" FROM "features"."Customers") d"#,
        ),
        (
            "SELECT d.FOO FROM (SELECT eventtime AS Foo FROM customers) AS D",
            r#"SELECT "d"."foo" FROM (SELECT "EventTime" AS Foo FROM "features"."Customers") AS D"#,
        ),
        (
            "SELECT X, y FROM (SELECT age, plan FROM customers) AS d (x, \"Y\")",
            r#"SELECT "x", "Y" FROM (SELECT "Age", "plan" FROM "features"."Customers") AS d (x, "Y")"#,
        ),
        (
            "SELECT DISTINCT ON (AGE) age, plan AS P FROM customers ORDER BY age, p",
            r#"SELECT DISTINCT ON ("Age") "Age", "plan" AS P FROM "features"."Customers" ORDER BY "Age", "p""#,
        ),
        (
            "SELECT age, row_number() OVER (PARTITION BY plan ORDER BY EVENTTIME) AS Rn FROM customers QUALIFY RN = 1",
            r#"SELECT "Age", row_number() OVER (PARTITION BY "plan" ORDER BY "EventTime") AS Rn FROM "features"."Customers" QUALIFY "rn" = 1"#,
        ),
        (
            "SELECT sum(age) OVER w FROM customers WINDOW w AS (PARTITION BY PLAN ORDER BY eventtime)",
            r#"SELECT sum("Age") OVER w FROM "features"."Customers" WINDOW w AS (PARTITION BY "plan" ORDER BY "EventTime")"#,
        ),
        (
            "SELECT Age(age), CAST(age AS Age) FROM customers",
            r#"SELECT Age("Age"), CAST("Age" AS Age) FROM "features"."Customers""#,
        ),
        (
            "SELECT COLUMN1 FROM (VALUES (1), (2))",
            r#"SELECT "column1" FROM (VALUES (1), (2))"#,
        ),
        (
            "SELECT v.A FROM (VALUES (1, 2)) AS V (a, b)",
            r#"SELECT "v"."a" FROM (VALUES (1, 2)) AS V (a, b)"#,
        ),
        (
            "SELECT age FROM customers LIMIT age",
            r#"SELECT "Age" FROM "features"."Customers" LIMIT age"#,
        ),
        (
            "SELECT CASE WHEN age > 1 THEN plan END, EXTRACT(YEAR FROM eventtime), age IN (1, AGE), age BETWEEN 1 AND age, count(*) FILTER (WHERE AGE > 1), first_value(plan ORDER BY eventtime) FROM customers",
            r#"SELECT CASE WHEN "Age" > 1 THEN "plan" END, EXTRACT(YEAR FROM "EventTime"), "Age" IN (1, "Age"), "Age" BETWEEN 1 AND "Age", count(*) FILTER (WHERE "Age" > 1), first_value("plan" ORDER BY "EventTime") FROM "features"."Customers""#,
        ),
        (
            "SELECT age, plan, count(*) FROM customers GROUP BY GROUPING SETS ((AGE), (PLAN, age)), ROLLUP (age)",
            r#"SELECT "Age", "plan", count(*) FROM "features"."Customers" GROUP BY GROUPING SETS (("Age"), ("plan", "Age")), ROLLUP ("Age")"#,
        ),
        (
            "SELECT age FROM customers GROUP BY ALL ORDER BY ALL",
            r#"SELECT "Age" FROM "features"."Customers" GROUP BY ALL ORDER BY ALL"#,
        ),
        (
            "SELECT age FROM customers WHERE age = $1 AND plan = 'Age'",
            r#"SELECT "Age" FROM "features"."Customers" WHERE "Age" = $1 AND "plan" = 'Age'"#,
        ),
        (
            "SELECT @@version FROM customers",
            r#"SELECT @@version FROM "features"."Customers""#,
        ),
    ]);
    refuse(&[
        (
            "SELECT k FROM (SELECT 1 AS \"K\", 2 AS k)",
            r#"write "K" or "k""#,
        ),
        (
            "SELECT 1 AS \"K\", 2 AS k ORDER BY K",
            r#"write "K" or "k""#,
        ),
    ]);
}

#[test]
fn joins() {
    check(&[
        (
            "SELECT c.age, TOTAL FROM customers c JOIN orders o ON c.customerid = O.CUSTOMERID",
            r#"SELECT "c"."Age", "Total" FROM "features"."Customers" c JOIN "features"."orders" o ON "c"."CustomerId" = "o"."customerid""#,
        ),
        (
            "SELECT EVENTTIME FROM customers c JOIN orders o USING (eventtime)",
            r#"SELECT "EventTime" FROM "features"."Customers" c JOIN "features"."orders" o USING("EventTime")"#,
        ),
        (
            "SELECT 1 FROM customers c JOIN nowhere n USING (age)",
            r#"SELECT 1 FROM "features"."Customers" c JOIN nowhere n USING("Age")"#,
        ),
        (
            r#"SELECT 1 FROM customers c JOIN orders o USING ("EventTime", nothing)"#,
            r#"SELECT 1 FROM "features"."Customers" c JOIN "features"."orders" o USING("EventTime", nothing)"#,
        ),
        (
            "SELECT age, label FROM (customers c CROSS JOIN labels) WHERE TS > 1",
            r#"SELECT "Age", "Label" FROM ("features"."Customers" c CROSS JOIN "temp"."labels") WHERE "ts" > 1"#,
        ),
        (
            "SELECT J.AGE FROM (customers c CROSS JOIN labels) AS j",
            r#"SELECT "j"."Age" FROM ("features"."Customers" c CROSS JOIN "temp"."labels") AS j"#,
        ),
        (
            "SELECT customerid FROM customers c LEFT SEMI JOIN orders o ON c.customerid = o.customerid",
            r#"SELECT "CustomerId" FROM "features"."Customers" c LEFT SEMI JOIN "features"."orders" o ON "c"."CustomerId" = "o"."customerid""#,
        ),
        (
            "SELECT customerid FROM customers c RIGHT ANTI JOIN orders o ON c.customerid = o.customerid",
            r#"SELECT "customerid" FROM "features"."Customers" c RIGHT ANTI JOIN "features"."orders" o ON "c"."CustomerId" = "o"."customerid""#,
        ),
        (
            "SELECT d.x FROM customers c, LATERAL (SELECT c.AGE + age AS X) d",
            r#"SELECT "d"."x" FROM "features"."Customers" c, LATERAL (SELECT "c"."Age" + "Age" AS X) d"#,
        ),
        (
            "SELECT 1 FROM customers c JOIN LATERAL (SELECT total FROM orders WHERE CUSTOMERID = c.CustomerID) d ON TOTAL > AGE",
            r#"SELECT 1 FROM "features"."Customers" c JOIN LATERAL (SELECT "Total" FROM "features"."orders" WHERE "customerid" = "c"."CustomerId") d ON "Total" > "Age""#,
        ),
        // What is not lateral sees no siblings.
        (
            "SELECT 1 FROM customers c, (SELECT age FROM orders) d",
            r#"SELECT 1 FROM "features"."Customers" c, (SELECT age FROM "features"."orders") d"#,
        ),
        (
            "SELECT u FROM my_group g, unnest(g.INFO) AS u",
            r#"SELECT u FROM "features"."my-group" g, UNNEST("g"."info") AS u"#,
        ),
        (
            "SELECT l.LABEL, AGE FROM labels l ASOF JOIN customers C MATCH_CONDITION (L.TS >= c.eventtime) ON customer_id = customerid",
            r#"SELECT "l"."Label", "Age" FROM ("temp"."labels" l ASOF JOIN "features"."Customers" C MATCH_CONDITION ("l"."ts" >= "c"."EventTime") ON "customer_id" = "CustomerId")"#,
        ),
        (
            "SELECT AGE, total FROM labels ASOF JOIN customers c MATCH_CONDITION (ts >= C.EVENTTIME) ON true ASOF JOIN orders MATCH_CONDITION (ts >= orders.eventtime) USING (eventtime)",
            r#"SELECT "Age", "Total" FROM (("temp"."labels" ASOF JOIN "features"."Customers" c MATCH_CONDITION ("ts" >= "c"."EventTime") ON true) ASOF JOIN "features"."orders" MATCH_CONDITION ("ts" >= "features"."orders"."EventTime") USING("EventTime"))"#,
        ),
        (
            "SELECT AGE FROM customers FOR SYSTEM_TIME AS OF now() - INTERVAL '1 day' WHERE age > 1",
            r#"SELECT "Age" FROM "features"."Customers" AT(SYSTEM_TIME => now() - INTERVAL '1 day') WHERE "Age" > 1"#,
        ),
    ]);
    refuse(&[
        (
            "SELECT 1 FROM customers c JOIN orders o USING (customerid)",
            r#"USING (customerid) does not fit at Line: 1, Column: 48: the left side calls it "CustomerId" and the right side "customerid"; join ON"#,
        ),
        (
            "SELECT 1 FROM customers c NATURAL JOIN orders o",
            r#"does not match "CustomerId" with "customerid""#,
        ),
        (
            "SELECT 1 FROM twin JOIN twin t ON true WHERE t.key = 1",
            "ambiguous",
        ),
        (
            "SELECT 1 FROM labels ASOF JOIN twin MATCH_CONDITION (ts >= KEY) ON true",
            "KEY is ambiguous",
        ),
    ]);
}

#[test]
fn subqueries() {
    check(&[
        (
            "SELECT (SELECT max(TOTAL) FROM orders o WHERE o.CUSTOMERID = c.customerid) FROM customers c",
            r#"SELECT (SELECT max("Total") FROM "features"."orders" o WHERE "o"."customerid" = "c"."CustomerId") FROM "features"."Customers" c"#,
        ),
        // The innermost query that has the name wins.
        (
            "SELECT 1 FROM customers WHERE EXISTS (SELECT 1 FROM orders WHERE CUSTOMERID = 1 AND AGE = 2)",
            r#"SELECT 1 FROM "features"."Customers" WHERE EXISTS (SELECT 1 FROM "features"."orders" WHERE "customerid" = 1 AND "Age" = 2)"#,
        ),
        (
            "SELECT 1 FROM customers WHERE age IN (SELECT total FROM orders WHERE orders.items = CUSTOMERS.age)",
            r#"SELECT 1 FROM "features"."Customers" WHERE "Age" IN (SELECT "Total" FROM "features"."orders" WHERE "features"."orders"."items" = "features"."Customers"."Age")"#,
        ),
        // A relation of unknown columns may have it.
        (
            "SELECT 1 FROM customers c WHERE EXISTS (SELECT 1 FROM nowhere WHERE AGE = 2 AND C.age = 1)",
            r#"SELECT 1 FROM "features"."Customers" c WHERE EXISTS (SELECT 1 FROM nowhere WHERE AGE = 2 AND "c"."Age" = 1)"#,
        ),
        (
            "SELECT age, x FROM customers, nowhere",
            r#"SELECT "Age", x FROM "features"."Customers", nowhere"#,
        ),
        (
            "SELECT age > ALL (SELECT items FROM orders) FROM customers",
            r#"SELECT "Age" > ALL(SELECT "items" FROM "features"."orders") FROM "features"."Customers""#,
        ),
        (
            "SELECT AGE FROM customers UNION ALL SELECT TOTAL FROM orders ORDER BY AGE",
            r#"SELECT "Age" FROM "features"."Customers" UNION ALL SELECT "Total" FROM "features"."orders" ORDER BY "Age""#,
        ),
        (
            "SELECT AGE FROM (SELECT age FROM customers EXCEPT SELECT total FROM orders)",
            r#"SELECT "Age" FROM (SELECT "Age" FROM "features"."Customers" EXCEPT SELECT "Total" FROM "features"."orders")"#,
        ),
        (
            "(SELECT AGE FROM customers) ORDER BY AGE",
            r#"(SELECT "Age" FROM "features"."Customers") ORDER BY "Age""#,
        ),
        (
            "FROM customers SELECT AGE",
            r#"FROM "features"."Customers" SELECT "Age""#,
        ),
        ("FROM customers", r#"FROM "features"."Customers""#),
        (
            "SELECT ARRAY(SELECT TOTAL FROM orders), [age], {'a': AGE} FROM customers",
            r#"SELECT ARRAY(SELECT "Total" FROM "features"."orders"), ["Age"], {'a': "Age"} FROM "features"."Customers""#,
        ),
    ]);
}

#[test]
fn common_table_expressions() {
    check(&[
        (
            "WITH C AS (SELECT age AS Years FROM customers) SELECT c.YEARS FROM c",
            r#"WITH C AS (SELECT "Age" AS Years FROM "features"."Customers") SELECT "c"."years" FROM "c""#,
        ),
        (
            r#"WITH "C" AS (SELECT age FROM customers) SELECT c.AGE FROM c"#,
            r#"WITH "C" AS (SELECT "Age" FROM "features"."Customers") SELECT "C"."Age" FROM "C""#,
        ),
        // A CTE's name wins inside its query, not inside itself.
        (
            "WITH customers AS (SELECT age AS x FROM customers) SELECT AGE, X FROM Customers",
            r#"WITH customers AS (SELECT "Age" AS x FROM "features"."Customers") SELECT AGE, "x" FROM "customers""#,
        ),
        (
            "WITH customers AS (SELECT 1 AS x) SELECT X, AGE FROM features.customers",
            r#"WITH customers AS (SELECT 1 AS x) SELECT X, "Age" FROM "features"."Customers""#,
        ),
        (
            "SELECT (WITH orders AS (SELECT 1 AS x) SELECT X FROM orders), TOTAL FROM orders",
            r#"SELECT (WITH orders AS (SELECT 1 AS x) SELECT "x" FROM "orders"), "Total" FROM "features"."orders""#,
        ),
        (
            "WITH a (One) AS (SELECT age FROM customers), b AS (SELECT ONE FROM A) SELECT b.one, AGE FROM b",
            r#"WITH a (One) AS (SELECT "Age" FROM "features"."Customers"), b AS (SELECT "one" FROM "a") SELECT "b"."one", AGE FROM "b""#,
        ),
        (
            "WITH RECURSIVE N (Val) AS (SELECT 1 UNION ALL SELECT VAL + 1 FROM n WHERE n.VAL < 3) SELECT VAL FROM n",
            r#"WITH RECURSIVE N (Val) AS (SELECT 1 UNION ALL SELECT "val" + 1 FROM "n" WHERE "n"."val" < 3) SELECT "val" FROM "n""#,
        ),
        (
            "WITH RECURSIVE n AS (SELECT age FROM customers) SELECT AGE FROM n",
            r#"WITH RECURSIVE n AS (SELECT "Age" FROM "features"."Customers") SELECT "Age" FROM "n""#,
        ),
        (
            "WITH c AS (SELECT * FROM customers) SELECT AGE FROM (SELECT * FROM c) WHERE EXISTS (SELECT 1 FROM C AS d WHERE D.age = 1)",
            r#"WITH c AS (SELECT * FROM "features"."Customers") SELECT "Age" FROM (SELECT * FROM "c") WHERE EXISTS (SELECT 1 FROM "c" AS d WHERE "d"."Age" = 1)"#,
        ),
    ]);
    refuse(&[(
        r#"WITH "C" AS (SELECT 1), c AS (SELECT 2) SELECT * FROM c"#,
        r#"write "C" or "c""#,
    )]);
}

/// Fourteen levels of doubling are 16,384 relations in less than a kilobyte.
#[test]
fn ctes_do_not_multiply() {
    let doubling = |levels: usize| {
        let ctes: Vec<_> = (1..=levels)
            .map(|level| format!("c{level} AS (SELECT * FROM c{0} a, c{0} b)", level - 1))
            .collect();
        format!(
            "WITH c0 AS (SELECT * FROM customers), {} SELECT 1 FROM c{levels}",
            ctes.join(", ")
        )
    };
    assert!(rewritten(&doubling(8)).is_ok());
    assert_eq!(
        rewritten(&doubling(9)).unwrap_err().kind,
        Kind::ResourceExhausted
    );
    assert_eq!(
        rewritten(&doubling(14)).unwrap_err().kind,
        Kind::ResourceExhausted
    );
    let unused: Vec<_> = (0..200)
        .map(|number| format!("c{number} AS (SELECT * FROM customers)"))
        .collect();
    assert!(rewritten(&format!("WITH {} SELECT 1 FROM c1, c2", unused.join(", "))).is_ok());
}

#[test]
fn table_functions() {
    check(&[
        (
            "SELECT p.AGE, LABEL, p.X FROM point_in_time_join((SELECT label, ts AS X FROM labels), 'customers', event_time => 'TS') AS P",
            r#"SELECT "p"."Age", "Label", "p"."x" FROM point_in_time_join((SELECT "Label", "ts" AS X FROM "temp"."labels"), 'customers', event_time => 'TS') AS P"#,
        ),
        (
            "SELECT TOTAL, LABEL FROM POINT_IN_TIME_JOIN(TABLE(labels), 'orders')",
            r#"SELECT "Total", "Label" FROM POINT_IN_TIME_JOIN(TABLE("temp"."labels"), 'orders')"#,
        ),
        (
            "WITH s AS (SELECT label AS L FROM labels) SELECT L FROM point_in_time_join(TABLE(S), 'orders')",
            r#"WITH s AS (SELECT "Label" AS L FROM "temp"."labels") SELECT "l" FROM point_in_time_join(TABLE("s"), 'orders')"#,
        ),
        (
            "SELECT X FROM point_in_time_join(TABLE(nowhere), 'orders')",
            "SELECT X FROM point_in_time_join(TABLE(nowhere), 'orders')",
        ),
        (
            "SELECT LATEST.age, CUSTOMERID FROM latest('customers')",
            r#"SELECT LATEST."Age", "CustomerId" FROM latest('customers')"#,
        ),
        (
            "SELECT l.age FROM latest('customers') L",
            r#"SELECT "l"."Age" FROM latest('customers') L"#,
        ),
        (
            "SELECT value FROM generate_series(1, 3)",
            "SELECT value FROM generate_series(1, 3)",
        ),
        (
            "SELECT 1 FROM my_group g, LATERAL f(G.INFO, id) AS x",
            r#"SELECT 1 FROM "features"."my-group" g, LATERAL f("g"."info", "Id") AS x"#,
        ),
        (
            "SELECT 1 FROM l ASOF JOIN point_in_time_join((SELECT LABEL FROM labels), 'a') r MATCH_CONDITION (l.x >= R.label)",
            r#"SELECT 1 FROM (l ASOF JOIN point_in_time_join((SELECT "Label" FROM "temp"."labels"), 'a') r MATCH_CONDITION (l.x >= "r"."Label"))"#,
        ),
    ]);
}

#[test]
fn other_statements() {
    check(&[
        ("DESCRIBE Customers", r#"DESCRIBE "features"."Customers""#),
        (
            "DESCRIBE history.CUSTOMERS",
            r#"DESCRIBE "history"."Customers""#,
        ),
        (
            "SHOW COLUMNS FROM customers",
            r#"SHOW COLUMNS FROM "features"."Customers""#,
        ),
        ("SHOW TABLES", "SHOW TABLES"),
        (
            "EXPLAIN SELECT AGE FROM customers",
            r#"EXPLAIN SELECT "Age" FROM "features"."Customers""#,
        ),
        (
            "EXPLAIN ANALYZE SELECT AGE FROM customers",
            r#"EXPLAIN ANALYZE SELECT "Age" FROM "features"."Customers""#,
        ),
        (
            "CREATE TEMP VIEW V AS SELECT AGE FROM customers",
            r#"CREATE TEMPORARY VIEW V AS SELECT "Age" FROM "features"."Customers""#,
        ),
        (
            "SET featureflight.system_time = '2026-01-01'",
            "SET featureflight.system_time = '2026-01-01'",
        ),
    ]);
}

#[test]
fn pipes() {
    check(&[
        (
            "FROM customers |> WHERE AGE > 1 |> SELECT age AS Years |> ORDER BY YEARS |> LIMIT 3",
            r#"FROM "features"."Customers" |> WHERE "Age" > 1 |> SELECT "Age" AS Years |> ORDER BY "years" |> LIMIT 3"#,
        ),
        (
            "FROM customers |> WHERE Customers.AGE > 1 |> EXTEND age + 1 AS Older |> WHERE OLDER > PLAN",
            r#"FROM "features"."Customers" |> WHERE "features"."Customers"."Age" > 1 |> EXTEND "Age" + 1 AS Older |> WHERE "older" > "plan""#,
        ),
        (
            "FROM customers |> AGGREGATE count(*) AS N GROUP BY plan |> WHERE n > 1 AND PLAN = 'x'",
            r#"FROM "features"."Customers" |> AGGREGATE count(*) AS N GROUP BY "plan" |> WHERE "n" > 1 AND "plan" = 'x'"#,
        ),
        (
            "FROM customers |> AS c |> JOIN orders o ON C.customerid = o.customerid |> WHERE TOTAL > C.AGE",
            r#"FROM "features"."Customers" |> AS c |> JOIN "features"."orders" o ON "c"."CustomerId" = "o"."customerid" |> WHERE "Total" > "c"."Age""#,
        ),
        (
            "FROM customers |> UNION ALL (SELECT * FROM orders) |> WHERE AGE = 1",
            r#"FROM "features"."Customers" |> UNION ALL (SELECT * FROM "features"."orders") |> WHERE "Age" = 1"#,
        ),
    ]);
}

/// What `DataFusion` folds itself stays as typed.
#[test]
fn variables() {
    check(&[(
        "SELECT @Age FROM customers",
        r#"SELECT @Age FROM "features"."Customers""#,
    )]);
}

/// A deep chain is walked without running out of stack.
#[test]
fn long_chains() {
    let terms = vec!["age = 1"; 450].join(" OR ");
    let sql = format!("SELECT 1 FROM customers WHERE {terms}");
    let mut statement = parse(&sql).unwrap();
    rewrite(sql_statement_mut(&mut statement).unwrap(), &source()).unwrap();
}
