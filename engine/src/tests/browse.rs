use arrow::datatypes::DataType;

use super::server;
use crate::metadata::REMARKS;

fn all(_: &str) -> bool {
    true
}

#[tokio::test]
async fn drivers_see_served_relations_only() {
    let server = server().await;
    server
        .rows("CREATE TEMP VIEW v AS SELECT customer_id, age FROM customers")
        .await
        .unwrap();
    assert_eq!(
        server.engine.schemas(&server.session),
        [
            "features",
            "history",
            "information_schema",
            "sagemaker_featurestore",
            "system",
            "temp"
        ]
    );
    let tables = server
        .engine
        .tables(&server.session, &all, &all)
        .await
        .unwrap();
    let names: Vec<_> = tables
        .iter()
        .filter(|table| table.kind != "SYSTEM TABLE")
        .map(|table| format!("{}.{} {}", table.schema, table.name, table.kind))
        .collect();
    assert_eq!(
        names,
        [
            "features.Loyal-Customers TABLE",
            "features.customers TABLE",
            "history.Loyal-Customers TABLE",
            "history.customers TABLE",
            "sagemaker_featurestore.customers_1 TABLE",
            "sagemaker_featurestore.loyal_customers_1 TABLE",
            "temp.v VIEW"
        ]
    );
}

#[tokio::test]
async fn tables_have_boundary_types_keys_and_remarks() {
    let server = server().await;
    let features = |schema: &str| schema == "features";
    let customers = |name: &str| name == "customers";
    let tables = server
        .engine
        .tables(&server.session, &features, &customers)
        .await
        .unwrap();
    assert_eq!(tables.len(), 1);
    let table = &tables[0];
    assert_eq!(table.primary_key, ["customer_id"]);
    assert_eq!(table.remarks.as_deref(), Some("all about customers"));
    assert_eq!(table.columns.field(0).data_type(), &DataType::Utf8);
    let age = table.columns.field_with_name("age").unwrap();
    assert_eq!(
        age.metadata().get(REMARKS).map(String::as_str),
        Some("in years")
    );
    let history = |schema: &str| schema == "history";
    let tables = server
        .engine
        .tables(&server.session, &history, &customers)
        .await
        .unwrap();
    assert!(tables[0].primary_key.is_empty());
    assert_eq!(tables[0].columns.fields().len(), 7);
}

#[tokio::test]
async fn what_is_browsed_can_be_queried_with_the_same_schema() {
    let server = server().await;
    server
        .rows("CREATE TEMP VIEW v AS SELECT customer_id, age FROM customers")
        .await
        .unwrap();
    let tables = server
        .engine
        .tables(&server.session, &all, &all)
        .await
        .unwrap();
    assert!(tables.len() > 15);
    for table in tables {
        let sql = format!("SELECT * FROM \"{}\".\"{}\"", table.schema, table.name);
        let prepared = server.engine.prepare(&server.session, &sql).await.unwrap();
        let shape = |schema: &arrow::datatypes::Schema| {
            let fields = schema.fields().iter();
            fields
                .map(|f| (f.name().clone(), f.data_type().clone()))
                .collect::<Vec<_>>()
        };
        assert_eq!(shape(&prepared.schema), shape(&table.columns), "{sql}");
    }
}

#[tokio::test]
async fn the_standard_views_list_what_there_is() {
    let server = server().await;
    let tables = server
        .lines(
            "SELECT table_schema, table_name FROM information_schema.tables \
             WHERE table_schema IN ('features', 'system')",
        )
        .await;
    assert_eq!(
        tables,
        [
            "features Loyal-Customers",
            "features customers",
            "system feature_groups",
            "system features",
            "system files",
            "system quarantine",
            "system queries",
            "system writes"
        ]
    );
    let columns = server
        .lines(
            "SELECT column_name, data_type FROM information_schema.columns \
             WHERE table_schema = 'features' AND table_name = 'customers'",
        )
        .await;
    assert_eq!(columns.len(), 4);
    assert!(
        columns.contains(&"customer_id Utf8".to_owned()),
        "{columns:?}"
    );
    let settings = server
        .lines("SELECT name FROM information_schema.df_settings")
        .await;
    assert_eq!(
        settings,
        [
            "featureflight.allow_drop",
            "featureflight.deletion",
            "featureflight.endpoints",
            "featureflight.fresh",
            "featureflight.max_bytes",
            "featureflight.max_rows",
            "featureflight.on_error",
            "featureflight.partial",
            "featureflight.query_timeout",
            "featureflight.system_time",
            "featureflight.timestamps",
            "featureflight.valid_time"
        ]
    );
    assert!(
        server
            .lines("SHOW SCHEMAS")
            .await
            .contains(&"history".to_owned())
    );
    assert!(!server.lines("SHOW TABLES").await.is_empty());
    let described = server.lines("DESCRIBE customers").await;
    assert!(
        described
            .iter()
            .any(|line| line.starts_with("customer_id Utf8 ")),
        "{described:?}"
    );
}
