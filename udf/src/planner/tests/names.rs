//! Which names stand for which relations and columns.

use featureflight_catalog::Kind;

use super::rig::Rig;

#[tokio::test]
async fn unquoted_names_ignore_case_and_quoted_ones_do_not() {
    let rig = Rig::new().await;
    for sql in [
        "SELECT orderid, TOTAL FROM orders",
        "SELECT ORDERID, total FROM FEATURES.ORDERS",
        "SELECT \"orderId\", total FROM \"Orders\"",
        "SELECT o.OrderId, o.Total FROM FeatureFlight.Features.orders AS o",
        "SELECT orders.orderid, orders.total FROM orders",
    ] {
        assert_eq!(rig.rows(sql).await, ["1 11.5", "2 20.0"], "{sql}");
    }
    assert_eq!(
        rig.columns("SELECT * FROM orders").await,
        ["orderId", "At", "total", "v"]
    );
    let error = rig.error("SELECT * FROM \"orders\"").await;
    assert_eq!(error.kind, Kind::NotFound);
    assert!(error.message.contains("Orders"), "{error}");
    let message = rig.invalid("SELECT \"orderid\" FROM orders").await;
    assert!(message.contains("orderId"), "{message}");
}

#[tokio::test]
async fn several_candidates_are_an_error_with_the_quoted_forms() {
    let rig = Rig::new().await;
    let message = rig.invalid("SELECT * FROM twin").await;
    assert!(message.contains("\"TWIN\" or \"twin\""), "{message}");
    assert!(rig.rows("SELECT * FROM \"twin\"").await.is_empty());
}

#[tokio::test]
async fn a_hyphen_may_be_typed_as_an_underscore() {
    let rig = Rig::new().await;
    assert_eq!(rig.rows("SELECT id FROM my_group").await, ["A"]);
    assert_eq!(
        rig.rows("SELECT my_group.id FROM features.MY_GROUP").await,
        ["A"]
    );
    assert_eq!(rig.rows("SELECT id FROM \"my-group\"").await, ["A"]);
    assert_eq!(rig.rows("SELECT id FROM latest('my_group')").await, ["A"]);
    assert_eq!(rig.rows("SELECT id FROM latest('my-group')").await, ["A"]);
    assert_eq!(
        rig.rows("SELECT id FROM latest('\"my-group\"')").await,
        ["A"]
    );
    assert_eq!(
        rig.error("SELECT id FROM \"my_group\"").await.kind,
        Kind::NotFound
    );
}

#[tokio::test]
async fn unknown_names_list_near_ones() {
    let rig = Rig::new().await;
    for (sql, part) in [
        ("SELECT * FROM custmers", "near names: customers"),
        ("SELECT * FROM features.order", "near names: Orders"),
        ("SELECT * FROM feature.customers", "near names: features"),
        (
            "SELECT * FROM sagemaker_featurestore.customers",
            "customers_1",
        ),
        ("SELECT * FROM system.feature_group", "feature_groups"),
        ("SELECT * FROM other.features.customers", "no catalog other"),
        ("SELECT * FROM temp.labels", "labels"),
        ("DESCRIBE custmers", "near names: customers"),
        (
            "SELECT * FROM (SELECT 1) a JOIN custmers c ON true",
            "near names: customers",
        ),
        (
            "SELECT (SELECT max(v) FROM custmers)",
            "near names: customers",
        ),
    ] {
        let error = rig.error(sql).await;
        assert_eq!(error.kind, Kind::NotFound, "{sql}: {error}");
        assert!(error.message.contains(part), "{sql}: {error}");
    }
    let message = rig.invalid("SELECT agee FROM customers").await;
    assert!(message.contains("Age"), "{message}");
    let message = rig.invalid("SELECT no_such_function(1)").await;
    assert!(message.contains("no_such_function"), "{message}");
}

#[tokio::test]
async fn a_group_that_is_not_served_answers_with_its_reason() {
    let rig = Rig::new().await;
    for sql in [
        "SELECT * FROM broken",
        "SELECT * FROM history.broken",
        "SELECT * FROM broken FOR SYSTEM_TIME AS OF now()",
        "DESCRIBE broken",
    ] {
        let error = rig.error(sql).await;
        assert_eq!(error.kind, Kind::FailedPrecondition, "{sql}: {error}");
        assert!(error.message.contains("Iceberg"), "{sql}: {error}");
    }
}

#[tokio::test]
async fn unqualified_tables_are_looked_up_in_temp_then_in_the_schema() {
    let mut rig = Rig::new().await;
    rig.view("labels", "SELECT 'view' AS id");
    assert_eq!(rig.rows("SELECT id FROM labels").await, ["view"]);
    assert_eq!(
        rig.rows("SELECT labels.id FROM temp.Labels").await,
        ["view"]
    );
    assert_eq!(
        rig.rows("WITH labels AS (SELECT 'cte' AS id) SELECT id FROM labels")
            .await,
        ["cte"]
    );
    let sql = "WITH labels AS (SELECT 'cte' AS id) SELECT id FROM temp.labels";
    assert_eq!(rig.rows(sql).await, ["view"]);
    rig.schema = "history".to_owned();
    assert_eq!(rig.rows("SELECT count(*) FROM customers").await, ["9"]);
    assert_eq!(
        rig.rows("SELECT count(*) FROM features.customers").await,
        ["2"]
    );
    // A view keeps the schema it was made in.
    rig.view("versions", "SELECT count(*) AS n FROM customers");
    rig.schema = "features".to_owned();
    assert_eq!(rig.rows("SELECT n FROM versions").await, ["9"]);
    rig.schema = "sagemaker_featurestore".to_owned();
    assert_eq!(rig.rows("SELECT count(*) FROM customers_1").await, ["9"]);
    rig.schema = "system".to_owned();
    assert_eq!(
        rig.rows("SELECT NAME FROM Feature_Groups").await,
        ["Orders", "customers"]
    );
}

#[tokio::test]
async fn a_cte_shadows_nothing_but_its_own_name() {
    let rig = Rig::new().await;
    let cte = "WITH \"features.customers\" AS (SELECT 'cte' AS id)";
    assert_eq!(
        rig.rows(&format!("{cte} SELECT id FROM features.customers"))
            .await,
        ["A", "C"]
    );
    assert_eq!(
        rig.rows(&format!("{cte} SELECT id FROM \"features.customers\""))
            .await,
        ["cte"]
    );
    let sql =
        "WITH customers AS (SELECT id FROM customers WHERE id = 'A') SELECT id FROM customers";
    assert_eq!(rig.rows(sql).await, ["A"]);
    let sql = "WITH Customers AS (SELECT 'cte' AS id) SELECT id FROM CUSTOMERS, (SELECT 1) one";
    assert_eq!(rig.rows(sql).await, ["cte"]);
    let sql = "WITH latest AS (SELECT 'cte' AS id) SELECT latest.id, c.id FROM latest, latest('customers') c";
    assert_eq!(rig.rows(sql).await, ["cte A", "cte C"]);
    let sql = "SELECT id FROM (WITH customers AS (SELECT 'cte' AS id) SELECT * FROM customers) a \
               UNION ALL SELECT id FROM customers";
    assert_eq!(rig.rows(sql).await, ["A", "C", "cte"]);
}

#[tokio::test]
async fn views_do_not_see_the_query_around_them() {
    let mut rig = Rig::new().await;
    rig.view("inside", "SELECT id FROM customers");
    let sql = "WITH customers AS (SELECT 'cte' AS id) SELECT id FROM inside";
    assert_eq!(rig.rows(sql).await, ["A", "C"]);
    rig.view("system_view", "SELECT name FROM system.feature_groups");
    assert_eq!(
        rig.rows("SELECT name FROM system_view").await,
        ["Orders", "customers"]
    );
    rig.view("lost", "SELECT * FROM gone");
    let sql = "WITH gone AS (SELECT 1) SELECT * FROM lost";
    assert_eq!(rig.error(sql).await.kind, Kind::NotFound);
}

#[tokio::test]
async fn a_view_that_reads_itself_is_an_error() {
    let mut rig = Rig::new().await;
    rig.view("a", "SELECT * FROM b");
    rig.view("b", "SELECT * FROM a");
    assert!(
        rig.invalid("SELECT * FROM a")
            .await
            .contains("reads itself")
    );
    for depth in 0..20 {
        let name = format!("v{depth}");
        let inner = if depth == 0 {
            "customers".to_owned()
        } else {
            format!("v{}", depth - 1)
        };
        rig.view(&name, &format!("SELECT id FROM {inner}"));
    }
    assert_eq!(rig.rows("SELECT * FROM v10").await, ["A", "C"]);
    assert!(
        rig.invalid("SELECT * FROM v19")
            .await
            .contains("nested deeper")
    );
}

#[tokio::test]
async fn views_join_themselves_and_are_planned_once() {
    let mut rig = Rig::new().await;
    rig.view("v", "SELECT id, v FROM customers");
    for depth in 0..14 {
        let inner = if depth == 0 {
            "v".to_owned()
        } else {
            format!("w{}", depth - 1)
        };
        rig.view(&format!("w{depth}"), &format!("SELECT id, v FROM {inner}"));
    }
    let sql = "SELECT a.id, b.v FROM w13 a JOIN w13 b ON a.id = b.id";
    assert_eq!(rig.rows(sql).await, ["A a2b", "C c4"]);
}
