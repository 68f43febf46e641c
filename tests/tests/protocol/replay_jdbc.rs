//! The calls Apache's JDBC driver makes, in its order, written from what is known of it. Every
//! statement is prepared, `catalog` in the URL is a session option, unknown properties are headers,
//! cookies come back, and the session is closed at the end.

use arrow::datatypes::{DataType, TimeUnit};
use arrow_flight::sql::{
    CommandGetCatalogs, CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys,
    CommandGetImportedKeys, CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTableTypes,
    CommandGetTables, CommandPreparedStatementQuery, CommandPreparedStatementUpdate,
};
use tonic::{Code, Status};

use super::client::{Answer, Client, Server, alone, code};
use super::options::text;
use super::sessions::{bearer, handshake};

async fn connect(server: &Server, catalog: Option<&str>) -> Client {
    let mut client = server.connect().await.with_cookies();
    let token = handshake(&mut client, Some("Basic dTpw".into()))
        .await
        .unwrap();
    let mut client = client.with_header("authorization", bearer(&token));
    if let Some(catalog) = catalog {
        assert_eq!(client.set(&[("catalog", text(catalog))]).await, []);
    }
    client
}

/// Statement.execute: prepared, then fetched or updated as the server says, then closed.
async fn execute(client: &mut Client, sql: &str) -> Result<Option<Answer>, Status> {
    let prepared = client.prepare(sql).await?;
    let update = prepared.is_update.unwrap_or(false);
    // Drivers before that field take an empty schema for an update.
    assert_eq!(prepared.dataset().fields().is_empty(), update, "{sql}");
    let handle = prepared.handle.clone();
    let answer = if update {
        let command = CommandPreparedStatementUpdate {
            prepared_statement_handle: handle.clone(),
        };
        client.put(vec![alone(&command)]).await?;
        None
    } else {
        let query = CommandPreparedStatementQuery {
            prepared_statement_handle: handle.clone(),
        };
        let answer = client.ask(&query).await?;
        assert_eq!(prepared.dataset(), *answer.schema, "prepared and sent");
        Some(answer)
    };
    let close = arrow_flight::sql::ActionClosePreparedStatementRequest {
        prepared_statement_handle: handle,
    };
    let close = prost::Message::encode_to_vec(&arrow_flight::sql::ProstMessageExt::as_any(&close));
    client.action("ClosePreparedStatement", close).await?;
    Ok(answer)
}

#[tokio::test]
async fn connect_browse_query_close() {
    let server = Server::start().await;
    let mut client = connect(&server, Some("featureflight")).await;
    client
        .ask(&CommandGetSqlInfo { info: Vec::new() })
        .await
        .unwrap();
    client.ask(&CommandGetCatalogs {}).await.unwrap();
    client
        .ask(&CommandGetDbSchemas {
            catalog: None,
            db_schema_filter_pattern: None,
        })
        .await
        .unwrap();
    let everything = CommandGetTables {
        catalog: None,
        db_schema_filter_pattern: None,
        table_name_filter_pattern: None,
        table_types: Vec::new(),
        include_schema: true,
    };
    assert!(client.ask(&everything).await.unwrap().rows() > 0);
    client.ask(&CommandGetTableTypes {}).await.unwrap();
    let (catalog, db_schema, table) = (None, Some("features".to_owned()), "examples".to_owned());
    let primary = CommandGetPrimaryKeys {
        catalog: catalog.clone(),
        db_schema: db_schema.clone(),
        table: table.clone(),
    };
    assert_eq!(client.ask(&primary).await.unwrap().rows(), 1);
    let exported = CommandGetExportedKeys {
        catalog: catalog.clone(),
        db_schema: db_schema.clone(),
        table: table.clone(),
    };
    assert_eq!(client.ask(&exported).await.unwrap().rows(), 0);
    let imported = CommandGetImportedKeys {
        catalog: catalog.clone(),
        db_schema: db_schema.clone(),
        table: table.clone(),
    };
    assert_eq!(client.ask(&imported).await.unwrap().rows(), 0);
    let cross = CommandGetCrossReference {
        pk_catalog: catalog.clone(),
        pk_db_schema: db_schema.clone(),
        pk_table: table.clone(),
        fk_catalog: catalog,
        fk_db_schema: db_schema,
        fk_table: table,
    };
    assert_eq!(client.ask(&cross).await.unwrap().rows(), 0);

    let rows = execute(&mut client, "SELECT id FROM features.examples")
        .await
        .unwrap();
    assert!(rows.expect("rows").rows() > 0);
    let none = execute(&mut client, "SELECT id FROM features.examples WHERE false")
        .await
        .unwrap();
    assert_eq!(none.expect("rows").rows(), 0);
    let set = "SET featureflight.system_time = '1970-01-01T00:17:00Z'";
    assert!(execute(&mut client, set).await.unwrap().is_none());
    let rows = execute(
        &mut client,
        "SELECT v FROM features.examples WHERE id = 'A'",
    )
    .await
    .unwrap();
    assert_eq!(rows.expect("rows").lines(), ["a1"]);
    assert_eq!(
        code(execute(&mut client, "SELECT * FROM nowhere").await),
        Code::NotFound
    );

    client.action("CloseSession", Vec::new()).await.unwrap();
    assert_eq!(code(client.query("SELECT 1").await), Code::Unauthenticated);
}

/// Without a user the cookie is the session, on the next connection too.
#[tokio::test]
async fn a_cookie_comes_back() {
    let server = Server::start().await;
    let mut client = server.connect().await.with_cookies();
    let set = "SET featureflight.system_time = '1970-01-01T00:17:00Z'";
    execute(&mut client, set).await.unwrap();
    assert!(client.cookie().is_some(), "a cookie is offered");
    let mut again = server.connect().await;
    again.cookies = client.cookies.clone();
    drop(client);
    let rows = execute(&mut again, "SELECT v FROM examples WHERE id = 'A'").await;
    assert_eq!(rows.unwrap().expect("rows").lines(), ["a1"]);
}

#[tokio::test]
async fn a_wrong_catalog_in_the_url_is_refused() {
    let server = Server::start().await;
    let mut client = connect(&server, None).await;
    assert_eq!(
        client.set(&[("catalog", text("hive"))]).await,
        [("catalog".to_owned(), 2)]
    );
}

/// Unsigned and text parameters of any number of columns, bound by `DoPut`, are in prepared.rs.
#[tokio::test]
async fn properties_of_the_url_are_headers() {
    let server = Server::start().await;
    let client = connect(&server, None).await;
    let mut client = client
        .with_header("featureflight-valid-time", "1960-01-01")
        .with_header("database", "features")
        .with_header("threadpoolsize", "4");
    let rows = execute(&mut client, "SELECT v FROM examples WHERE id = 'A'")
        .await
        .unwrap();
    assert_eq!(rows.expect("rows").rows(), 0);
}

/// The driver puts milliseconds into whatever unit it is told.
#[tokio::test]
async fn instants_are_bound_in_milliseconds() {
    let server = Server::start().await;
    let mut client = connect(&server, None).await;
    let sql = "SELECT v FROM examples FOR VALID_TIME AS OF $1 WHERE id = 'A'";
    let prepared = client.prepare(sql).await.unwrap();
    let millis = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    assert_eq!(prepared.parameters().field(0).data_type(), &millis);
}
