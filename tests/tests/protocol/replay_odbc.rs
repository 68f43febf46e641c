//! The calls Apache's ODBC driver makes, in its order, written from what is known of it; the driver
//! itself is not run. Cookies always, unknown keys of the connection string as lowercase headers,
//! statements of every kind on the query path, and one look at each endpoint's location.

use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Int64Type};
use arrow_flight::CancelStatus;
use arrow_flight::sql::{
    CommandGetCatalogs, CommandGetDbSchemas, CommandGetSqlInfo, CommandGetTableTypes,
    CommandGetTables, CommandGetXdbcTypeInfo, CommandPreparedStatementQuery,
};
use tonic::Code;

use super::client::{Client, Server, code, only_ticket};
use super::headers::LONG;
use super::sessions::{bearer, handshake};

/// SQLDriverConnect with uid and pwd: a handshake, whose bearer every later call carries beside the
/// cookie the server offers, if it does, and one GetSqlInfo for everything.
async fn connect(server: &Server, keys: &[(&'static str, &str)]) -> Client {
    let mut client = server.connect().await.with_cookies();
    for (key, value) in keys {
        client = client.with_header(key, *value);
    }
    let token = handshake(&mut client, Some("Basic dTpw".into()))
        .await
        .unwrap();
    let client = client.with_header("authorization", bearer(&token));
    describe(client).await
}

/// The same without uid and pwd: a cookie is all there is of the session.
async fn connect_without_user(server: &Server) -> Client {
    let client = describe(server.connect().await.with_cookies()).await;
    assert!(client.cookie().is_some(), "a cookie is offered");
    client
}

/// What the driver asks first.
async fn describe(mut client: Client) -> Client {
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

/// A type of SQL, its least and greatest values as they are shown, and what is sent.
type Extremes = (&'static str, [&'static str; 2], fn(&DataType) -> bool);

const EXTREMES: [Extremes; 13] = [
    ("BOOLEAN", ["false", "true"], |t| *t == DataType::Boolean),
    ("TINYINT", ["-128", "127"], |t| *t == DataType::Int8),
    ("SMALLINT", ["-32768", "32767"], |t| *t == DataType::Int16),
    ("INTEGER", ["-2147483648", "2147483647"], |t| {
        *t == DataType::Int32
    }),
    (
        "BIGINT",
        ["-9223372036854775808", "9223372036854775807"],
        |t| *t == DataType::Int64,
    ),
    ("REAL", ["-3.4028235e38", "3.4028235e38"], |t| {
        *t == DataType::Float32
    }),
    (
        "DOUBLE",
        ["-1.7976931348623157e308", "1.7976931348623157e308"],
        |t| *t == DataType::Float64,
    ),
    (
        "DECIMAL(38, 0)",
        [
            "-99999999999999999999999999999999999999",
            "99999999999999999999999999999999999999",
        ],
        |t| matches!(t, DataType::Decimal128(38, 0)),
    ),
    ("VARCHAR", ["", "größer 😀"], |t| *t == DataType::Utf8),
    ("BYTEA", ["", "c3bf"], |t| *t == DataType::Binary),
    ("DATE", ["0001-01-01", "9999-12-31"], |t| {
        *t == DataType::Date32
    }),
    ("TIME", ["00:00:00", "23:59:59.999999"], |t| {
        matches!(t, DataType::Time64(_))
    }),
    (
        "TIMESTAMP",
        ["1677-09-22T00:00:00Z", "2262-04-11T00:00:00Z"],
        |t| matches!(t, DataType::Timestamp(..)),
    ),
];

#[tokio::test]
async fn nulls_and_extremes_of_each_type() {
    let server = Server::start().await;
    let mut client = connect(&server, &[]).await;
    for (name, [least, greatest], is_sent) in EXTREMES {
        // Bytes are written as the text they are of.
        let greatest_text = greatest.replace("c3bf", "ÿ");
        let sql = format!(
            "SELECT CAST(text AS {name}) AS value \
             FROM (VALUES (1, '{least}'), (2, '{greatest_text}'), (3, NULL)) AS v (n, text) ORDER BY n"
        );
        let answer = client.query(&sql).await.unwrap();
        assert!(is_sent(answer.schema.field(0).data_type()), "{name}");
        assert_eq!(answer.lines(), [least, greatest, ""], "{name}");
        let nulls: usize = answer
            .batches
            .iter()
            .map(|b| b.column(0).null_count())
            .sum();
        assert_eq!(nulls, 1, "{name}");
        let none = sql.replace("ORDER BY", "WHERE n > 9 ORDER BY");
        let empty = client.query(&none).await.unwrap();
        assert_eq!((empty.rows(), empty.schema), (0, answer.schema), "{name}");
    }
}

/// SQLGetDiagRec shows the status's text: it has to name what is wrong.
#[tokio::test]
async fn errors_name_what_is_wrong_early_or_late() {
    let server = Server::start().await;
    let mut client = connect(&server, &[]).await;
    let at_once = [
        ("SELECT v FROM exampels", Code::NotFound, "exampels"),
        ("SELECT w FROM examples", Code::InvalidArgument, "w"),
        ("SELEC 1", Code::InvalidArgument, "SELEC"),
    ];
    for (sql, expected, named) in at_once {
        let status = client.execute(sql).await.expect_err(sql);
        assert_eq!(status.code(), expected, "{status}");
        assert!(status.message().contains(named), "{status}");
    }
    // Rows come first: the driver has shown them when it fails.
    let late = "SELECT value, 1 / (999999 - value) FROM range(1000000)";
    let ticket = only_ticket(&client.execute(late).await.unwrap());
    let request = client.request(ticket);
    let mut messages = client.flight.do_get(request).await.unwrap().into_inner();
    let mut before = 0;
    let status = loop {
        match messages.message().await {
            Ok(message) => assert!(message.is_some(), "the result passes for complete"),
            Err(status) => break status,
        }
        before += 1;
    };
    assert!(before > 2, "{before} messages");
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().contains("division by zero"), "{status}");
    assert_eq!(exec_direct(&mut client, "SELECT 1").await.unwrap(), ["1"]);
}

/// The driver has no SQLCancel: an application closes the statement, which drops the call. Others
/// send the action.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_statement_ends_and_so_does_a_cancelled_one() {
    let server = Server::start().await;
    let mut client = connect(&server, &[]).await;
    for by_action in [false, true] {
        let info = client.execute(LONG).await.unwrap();
        let mut reader = client.clone();
        let ticket = only_ticket(&info);
        let reading = tokio::spawn(async move { reader.fetch(&ticket).await.map(|_| ()) });
        let running = || server.handle.engine.status().running;
        while running() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let began = Instant::now();
        if by_action {
            assert_eq!(client.cancel(&info).await.unwrap(), CancelStatus::Cancelled);
            assert_eq!(code(reading.await.unwrap()), Code::Cancelled);
        } else {
            reading.abort();
        }
        while running() > 0 {
            let waited = began.elapsed();
            assert!(waited < Duration::from_secs(2), "by action: {by_action}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// SQL_ATTR_QUERY_TIMEOUT is the deadline of each call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_query_timeout_is_a_deadline() {
    let server = Server::start().await;
    let client = connect(&server, &[]).await;
    let mut hurried = client.with_header("grpc-timeout", "500m");
    let began = Instant::now();
    let late = exec_direct(&mut hurried, LONG).await;
    assert_eq!(code(late), Code::DeadlineExceeded);
    assert!(began.elapsed() < Duration::from_secs(5));
}

/// With a user a bearer is the session, without one the cookie: on the next connection too.
#[tokio::test]
async fn a_session_survives_its_connection() {
    let server = Server::start().await;
    for with_user in [true, false] {
        let mut client = if with_user {
            connect(&server, &[]).await
        } else {
            connect_without_user(&server).await
        };
        exec_direct(
            &mut client,
            &format!("SET featureflight.system_time = '{EARLY}'"),
        )
        .await
        .unwrap();
        let mut again = server.connect().await;
        (again.headers, again.cookies) = (client.headers.clone(), client.cookies.clone());
        drop(client);
        let rows = exec_direct(&mut again, ASK).await.unwrap();
        assert_eq!(rows, ["a1"], "with a user: {with_user}");
        let mut stranger = connect_without_user(&server).await;
        assert_eq!(exec_direct(&mut stranger, ASK).await.unwrap(), ["a2b"]);
    }
}

const EARLY: &str = "1970-01-01T00:17:00Z";
const ASK: &str = "SELECT v FROM examples WHERE id = 'A'";

#[tokio::test]
async fn a_clock_by_sql_by_set_and_by_header() {
    let server = Server::start().await;
    let mut plain = connect(&server, &[]).await;
    let mut set = connect(&server, &[]).await;
    let clock = format!("SET featureflight.system_time = '{EARLY}'");
    exec_direct(&mut set, &clock).await.unwrap();
    let mut header = connect(&server, &[("featureflight-system-time", EARLY)]).await;
    let in_sql = format!("FROM examples FOR SYSTEM_TIME AS OF TIMESTAMP '{EARLY}'");
    let in_sql = ASK.replace("FROM examples", &in_sql);
    for (client, sql) in [
        (&mut plain, in_sql.as_str()),
        (&mut set, ASK),
        (&mut header, ASK),
    ] {
        assert_eq!(exec_direct(client, sql).await.unwrap(), ["a1"], "{sql}");
    }
    assert_eq!(exec_direct(&mut plain, ASK).await.unwrap(), ["a2b"]);
}

/// The driver uploads nothing: a spine is written into the statement, or is a query.
#[tokio::test]
async fn a_point_in_time_join_with_a_spine_in_the_statement() {
    let server = Server::start().await;
    let mut client = connect(&server, &[]).await;
    let values = "SELECT v.id, CAST(v.at AS TIMESTAMP) AS ts FROM (VALUES \
                  ('A', '1970-01-01T00:02:00Z'), ('A', '1970-01-01T00:04:00Z'), \
                  ('nobody', '1970-01-01T00:04:00Z')) AS v (id, at)";
    let query = "SELECT id, event_time AS ts FROM history.examples WHERE v IN ('a1', 'c4')";
    for (spine, expected) in [
        (values, &["A|a1", "A|a2b", "nobody|"][..]),
        (query, &["A|a1", "C|c4"]),
    ] {
        let sql =
            format!("SELECT id, v FROM point_in_time_join(({spine}), 'examples') ORDER BY id, ts");
        assert_eq!(exec_direct(&mut client, &sql).await.unwrap(), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_rows_come_whole_and_in_order() {
    let server = Server::start().await;
    let mut client = connect(&server, &[]).await;
    let sql = "SELECT value, 'row ' || value AS text FROM range(1000000) ORDER BY value";
    let answer = client.query(sql).await.unwrap();
    let mut expected = 0;
    for batch in &answer.batches {
        let texts = batch.column(1).as_string::<i32>();
        for (row, value) in batch
            .column(0)
            .as_primitive::<Int64Type>()
            .values()
            .iter()
            .enumerate()
        {
            assert_eq!(*value, expected);
            assert_eq!(texts.value(row), format!("row {value}"));
            expected += 1;
        }
    }
    assert_eq!(expected, 1_000_000);
}
