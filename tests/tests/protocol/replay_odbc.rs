//! The calls Apache's ODBC driver makes, in its order, written from what is known of it; the driver
//! itself is not run. Cookies always, unknown keys of the connection string as lowercase headers,
//! statements of every kind on the query path, and one look at each endpoint's location.

use arrow::datatypes::DataType;
use arrow_flight::sql::{
    CommandGetCatalogs, CommandGetDbSchemas, CommandGetSqlInfo, CommandGetTableTypes,
    CommandGetTables, CommandGetXdbcTypeInfo, CommandPreparedStatementQuery,
};
use tonic::Code;

use super::client::{Client, Server, code, only_ticket};
use super::sessions::{bearer, handshake};

/// SQLDriverConnect with uid and pwd: a handshake, whose bearer every later call carries beside the
/// cookie the server offers, and one GetSqlInfo for everything.
async fn connect(server: &Server, keys: &[(&'static str, &str)]) -> Client {
    let mut client = server.connect().await;
    for (key, value) in keys {
        client = client.with_header(key, *value);
    }
    let token = handshake(&mut client, Some("Basic dTpw".into()))
        .await
        .unwrap();
    let mut client = client.with_header("authorization", bearer(&token));
    let info = client
        .ask(&CommandGetSqlInfo { info: Vec::new() })
        .await
        .unwrap();
    assert!(info.rows() > 70, "every standard entry: {}", info.rows());
    client
}

/// SQLExecDirect: the query path, whatever the statement is.
async fn exec_direct(client: &mut Client, sql: &str) -> Result<Vec<String>, tonic::Status> {
    let info = client.execute(sql).await?;
    for endpoint in &info.endpoint {
        assert!(
            endpoint.location.is_empty(),
            "the driver would connect anew for each"
        );
    }
    Ok(client.fetch(&only_ticket(&info)).await?.lines())
}

#[tokio::test]
async fn connect_browse_query() {
    let server = Server::start().await;
    let mut client = connect(&server, &[]).await;
    assert_eq!(
        client.ask(&CommandGetCatalogs {}).await.unwrap().lines(),
        ["featureflight"]
    );
    let schemas = CommandGetDbSchemas {
        catalog: Some("featureflight".into()),
        db_schema_filter_pattern: Some("%".into()),
    };
    assert!(client.ask(&schemas).await.unwrap().rows() >= 5);
    assert!(client.ask(&CommandGetTableTypes {}).await.unwrap().rows() >= 3);
    // SQLColumns asks for tables with their schemas; SQLTables without.
    for include_schema in [false, true] {
        let tables = CommandGetTables {
            catalog: Some("featureflight".into()),
            db_schema_filter_pattern: Some("features".into()),
            table_name_filter_pattern: Some("%".into()),
            table_types: vec!["TABLE".into()],
            include_schema,
        };
        let tables = client.ask(&tables).await.unwrap();
        assert_eq!(
            tables.schema.fields().len(),
            if include_schema { 5 } else { 4 }
        );
        assert!(tables.rows() > 0);
    }
    // SQLGetTypeInfo, for all types and for one.
    for data_type in [None, Some(12)] {
        let types = client
            .ask(&CommandGetXdbcTypeInfo { data_type })
            .await
            .unwrap();
        assert!(types.rows() > 0, "{data_type:?}");
    }
    assert_eq!(
        exec_direct(&mut client, "SELECT 1 AS one").await.unwrap(),
        ["1"]
    );
    // SQLPrepare and SQLExecute; the driver binds no parameters.
    let handle = client
        .prepare("SELECT id FROM examples ORDER BY id")
        .await
        .unwrap()
        .handle;
    let query = CommandPreparedStatementQuery {
        prepared_statement_handle: handle,
    };
    assert!(client.ask(&query).await.unwrap().rows() > 0);
}

#[tokio::test]
async fn keys_of_the_connection_string_are_clocks_and_schema() {
    let server = Server::start().await;
    let keys = [
        ("featureflight-system-time", "1970-01-01T00:17:00Z"),
        ("schema", "features"),
    ];
    let mut client = connect(&server, &keys).await;
    let rows = exec_direct(&mut client, "SELECT v FROM examples WHERE id = 'A'").await;
    assert_eq!(rows.unwrap(), ["a1"]);
}

#[tokio::test]
async fn statements_with_an_effect_have_it_once_and_answer_the_same_row_again() {
    let server = Server::start().await;
    let mut client = connect(&server, &[]).await;
    let info = client
        .execute("CREATE TEMP VIEW once AS SELECT 1 AS x")
        .await
        .unwrap();
    for _ in 0..2 {
        assert_eq!(
            client.fetch(&only_ticket(&info)).await.unwrap().lines(),
            ["OK"]
        );
    }
    assert_eq!(
        exec_direct(&mut client, "SELECT x FROM once")
            .await
            .unwrap(),
        ["1"]
    );
    let again = exec_direct(&mut client, "CREATE TEMP VIEW once AS SELECT 1 AS x").await;
    assert_eq!(code(again), Code::AlreadyExists);
    for write in [
        "INSERT INTO examples VALUES ('x')",
        "DELETE FROM examples",
        "UPDATE examples SET v = 'x'",
    ] {
        assert_eq!(
            code(exec_direct(&mut client, write).await),
            Code::InvalidArgument,
            "{write}"
        );
    }
}

/// What the driver has accessors for; view types, dictionaries and small decimals it has not.
#[tokio::test]
async fn only_types_the_driver_reads_leave() {
    let server = Server::start().await;
    let mut client = connect(&server, &[]).await;
    let answer = client
        .query(
            "SELECT 'text' AS t, arrow_cast('v', 'Utf8View') AS v, \
             arrow_cast('d', 'Dictionary(Int32, Utf8)') AS d, DATE '2026-01-01' AS day, \
             TIMESTAMP '2026-01-01' AS at, CAST(1.5 AS DECIMAL(5, 2)) AS n, \
             arrow_cast(1.5, 'Decimal32(5, 2)') AS small, 1 AS i, true AS b",
        )
        .await
        .unwrap();
    for field in answer.schema.fields() {
        assert!(
            matches!(
                field.data_type(),
                DataType::Utf8
                    | DataType::Date32
                    | DataType::Timestamp(..)
                    | DataType::Decimal128(..)
                    | DataType::Int64
                    | DataType::Boolean
            ),
            "{field}"
        );
        let keys = field.metadata().keys();
        assert!(
            keys.clone().any(|key| key.starts_with("ARROW:FLIGHT:SQL:")),
            "{field}"
        );
    }
}
