//! Input that was good once: each kind is changed at random and never ends in more than an error of
//! the client's own. An internal error is a failure here, since a panic of the server ends as one.

use std::path::Path;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, ListArray, RecordBatch, StringArray};
use arrow::datatypes::Int32Type;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::sql::{
    Any, CommandPreparedStatementQuery, CommandStatementIngest, ProstMessageExt,
    TableDefinitionOptions, TableExistsOption, TableNotExistOption, TicketStatementQuery,
};
use arrow_flight::{FlightData, FlightDescriptor, Ticket};
use featureflight_catalog::hive_type::parse_hive_type;
use featureflight_catalog::source::CatalogSource;
use featureflight_catalog::source::files::FilesSource;
use featureflight_catalog::{Instant, Kind};
use featureflight_engine::session::Session;
use featureflight_tests::fuzz::run;
use featureflight_tests::warehouse::write_examples;
use futures::TryStreamExt;
use prost::Message;
use tokio::runtime::Runtime;
use tonic::{Code, Status};

use super::client::{Client, Server, alone, only_ticket};

const STATEMENTS: [&str; 14] = [
    "SELECT id, v FROM features.examples FOR SYSTEM_TIME AS OF '1970-01-01' WHERE id = $1",
    "SELECT * FROM examples TIMESTAMP AS OF now() - INTERVAL '1 day' ORDER BY id LIMIT 3",
    "SELECT * FROM examples AT (TIMESTAMP => '2026-01-01T00:00:00Z') e JOIN history.examples h USING (id)",
    "SELECT * FROM point_in_time_join((SELECT id, event_time AS ts FROM history.examples), 'examples:v', event_time => 'ts', max_age => INTERVAL '3 days', known_at => 'ts')",
    "SELECT * FROM as_of('examples', event_time => '1970-01-01', known_at => now())",
    "SELECT * FROM history('examples', \"from\" => '1970-01-01', \"to\" => '2026-01-01')",
    "SELECT l.id, r.v FROM history.examples l ASOF JOIN features.examples r MATCH_CONDITION (l.event_time >= r.event_time) ON l.id = r.id",
    "WITH t AS (SELECT id, count(*) AS n FROM examples GROUP BY ROLLUP (id)) SELECT n, CASE WHEN n > 1 THEN [n] END FROM t UNION ALL SELECT 1, NULL",
    "SELECT \"ZipCode\", sum(\"zipCode2\") OVER (PARTITION BY \"Id\" ORDER BY \"EventTime\") FROM \"MixedCase\"",
    "SET featureflight.system_time = '2026-01-01'",
    "CREATE OR REPLACE TEMP VIEW w (a, b) AS SELECT id, v || 'x' FROM examples WHERE v LIKE 'a%' OR v ~ '[a-z]{2}'",
    "EXPLAIN ANALYZE SELECT struct(id, v)['c0'], {'a': 1}, INTERVAL '1' DAY, CAST('1' AS INT[]) FROM examples",
    "SHOW COLUMNS FROM features.examples",
    "SELECT regexp_replace(v, 'a+', '$1', 'g'), array_to_string(range(3), ','), lpad(v, 9) FROM examples",
];

fn blamed_on_the_client(status: &Status) {
    assert!(
        !matches!(status.code(), Code::Internal | Code::Unknown),
        "{status}"
    );
}

fn served() -> (Runtime, Server, Client) {
    let runtime = Runtime::new().unwrap();
    let (server, client) = runtime.block_on(async {
        let server = Server::start().await;
        let client = server.connect().await;
        (server, client)
    });
    (runtime, server, client)
}

#[test]
fn statements() {
    let runtime = Runtime::new().unwrap();
    let server = runtime.block_on(Server::configured(|config| {
        // What a mutation makes large is none of this test's business.
        config.engine.query_timeout.0 = Duration::from_secs(3);
    }));
    let seeds: Vec<_> = STATEMENTS
        .iter()
        .map(|sql| sql.as_bytes().to_vec())
        .collect();
    run("statements", &seeds, |input| {
        let sql = String::from_utf8_lossy(input);
        let session = std::sync::Arc::new(Session::new("fuzz"));
        let engine = &server.handle.engine;
        let outcome = runtime.block_on(engine.prepare(&session, &sql));
        if let Err(error) = outcome {
            assert_ne!(error.kind, Kind::Internal, "{sql}: {error}");
        }
        // On a connection of its own, which is a session: down to the physical plan and the rows.
        let answered: Result<_, Status> = runtime.block_on(async {
            let mut client = server.connect().await;
            let info = client.execute(&sql).await?;
            for endpoint in &info.endpoint {
                client.fetch(endpoint.ticket.as_ref().unwrap()).await?;
            }
            Ok(())
        });
        if let Err(status) = answered {
            assert!(
                !matches!(status.code(), Code::Internal | Code::Unknown),
                "{sql}: {status}"
            );
        }
    });
}

#[test]
fn arguments_of_our_functions() {
    let (runtime, server, _) = served();
    let seeds = [
        "examples",
        "examples:v",
        "\"MixedCase\":\"ZipCode\"",
        "examples.id = id",
        "examples-fractional",
    ];
    let seeds: Vec<_> = seeds.iter().map(|text| text.as_bytes().to_vec()).collect();
    run("arguments", &seeds, |input| {
        let text = String::from_utf8_lossy(input).replace('\'', "''");
        let session = std::sync::Arc::new(Session::new("fuzz"));
        let spine = "(SELECT id, event_time AS ts FROM history.examples)";
        for sql in [
            format!("SELECT * FROM point_in_time_join({spine}, '{text}')"),
            format!("SELECT * FROM point_in_time_join({spine}, 'examples', keys => '{text}')"),
            format!(
                "SELECT * FROM point_in_time_join({spine}, 'examples', event_time => '{text}')"
            ),
            format!("SELECT * FROM latest('{text}')"),
            format!("SELECT * FROM as_of('examples', event_time => '{text}')"),
        ] {
            let outcome = runtime.block_on(server.handle.engine.prepare(&session, &sql));
            if let Err(error) = outcome {
                assert_ne!(error.kind, Kind::Internal, "{sql}: {error}");
            }
        }
    });
}

#[test]
fn tickets() {
    let (runtime, _server, mut client) = served();
    let info = runtime.block_on(client.execute("SELECT 1")).unwrap();
    let seeds = vec![only_ticket(&info).ticket.to_vec()];
    run("tickets", &seeds, |input| {
        let ticket = Ticket::new(input.to_vec());
        match runtime.block_on(client.fetch(&ticket)) {
            // Protocol Buffers write one message in many ways; what is sealed is inside of it.
            Ok(_) => assert_eq!(
                sealed(input),
                sealed(&seeds[0]),
                "a changed ticket was taken"
            ),
            Err(status) => {
                assert_ne!(input, seeds[0], "the ticket itself was not: {status}");
                blamed_on_the_client(&status);
            }
        }
    });
}

/// What a ticket's envelope holds.
fn sealed(ticket: &[u8]) -> Option<Vec<u8>> {
    let any = Any::decode(ticket).ok()?;
    let inside: TicketStatementQuery = any.unpack().ok()??;
    Some(inside.statement_handle.to_vec())
}

#[test]
fn handles() {
    let (runtime, _server, mut client) = served();
    let prepared = runtime.block_on(client.prepare("SELECT 1")).unwrap();
    let seeds = vec![prepared.handle.to_vec()];
    run("handles", &seeds, |input| {
        let command = CommandPreparedStatementQuery {
            prepared_statement_handle: input.to_vec().into(),
        };
        let changed = input != seeds[0];
        match runtime.block_on(client.info(&command)) {
            Ok(_) => assert!(!changed, "a changed handle was taken"),
            Err(status) => blamed_on_the_client(&status),
        }
    });
}

#[test]
fn descriptors() {
    let (runtime, _server, mut client) = served();
    let command = arrow_flight::sql::CommandGetTables {
        catalog: Some("featureflight".into()),
        db_schema_filter_pattern: Some("feat%".into()),
        table_name_filter_pattern: Some("_x\\%".into()),
        table_types: vec!["TABLE".into()],
        include_schema: true,
    };
    let seeds = vec![command.as_any().encode_to_vec()];
    run("descriptors", &seeds, |input| {
        let descriptor = FlightDescriptor::new_cmd(input.to_vec());
        let asked = runtime.block_on(client.flight.get_flight_info(descriptor));
        if let Err(status) = asked {
            blamed_on_the_client(&status);
        }
        if let Err(status) = runtime.block_on(client.fetch(&Ticket::new(input.to_vec()))) {
            blamed_on_the_client(&status);
        }
    });
}

#[test]
fn arrow_messages() {
    let (runtime, _server, mut client) = served();
    let handle = runtime
        .block_on(client.prepare("SELECT $1, $2, $3"))
        .unwrap()
        .handle;
    let row = RecordBatch::try_from_iter([
        (
            "1",
            std::sync::Arc::new(Int64Array::from(vec![7])) as ArrayRef,
        ),
        (
            "2",
            std::sync::Arc::new(StringArray::from(vec!["seven"])) as ArrayRef,
        ),
        (
            "3",
            std::sync::Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some([
                Some(7),
            ])])) as ArrayRef,
        ),
    ]);
    let encoder =
        FlightDataEncoderBuilder::new()
            .build(futures::stream::iter([Ok::<_, FlightError>(row.unwrap())]));
    let good: Vec<FlightData> = runtime.block_on(encoder.try_collect()).unwrap();
    let seeds: Vec<_> = good.iter().map(Message::encode_to_vec).collect();
    let command = CommandPreparedStatementQuery {
        prepared_statement_handle: handle,
    };
    let upload = |if_exists: TableExistsOption| CommandStatementIngest {
        table: "uploaded".to_owned(),
        temporary: true,
        table_definition_options: Some(TableDefinitionOptions {
            if_not_exist: TableNotExistOption::Create.into(),
            if_exists: if_exists.into(),
        }),
        ..CommandStatementIngest::default()
    };
    let (replace, append) = (
        upload(TableExistsOption::Replace),
        upload(TableExistsOption::Append),
    );
    run("arrow_messages", &seeds, |input| {
        let Ok(changed) = FlightData::decode(input) else {
            return;
        };
        for messages in [
            vec![alone(&command), changed.clone(), good[1].clone()],
            vec![alone(&command), good[0].clone(), changed.clone()],
            vec![alone(&replace), changed.clone(), good[1].clone()],
            vec![alone(&append), good[0].clone(), changed.clone()],
            // A table of the columns it says, with rows of them and of others added.
            vec![alone(&replace), changed.clone()],
            vec![alone(&append), changed],
            vec![alone(&append), good[0].clone(), good[1].clone()],
        ] {
            let messages = futures::stream::iter(messages);
            let bound = runtime.block_on(async {
                let answers = client.flight.do_put(messages).await?;
                answers.into_inner().try_collect::<Vec<_>>().await
            });
            if let Err(status) = bound {
                blamed_on_the_client(&status);
            }
        }
    });
}

#[test]
fn descriptions_of_groups_and_tables() {
    let runtime = Runtime::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    write_examples(directory.path());
    let groups = directory.path().join("feature-groups");
    let tables = directory.path().join("glue-tables");
    std::fs::create_dir_all(&tables).unwrap();
    let table = serde_json::json!({"Table": {
        "Name": "examples_1700000000", "DatabaseName": "sagemaker_featurestore",
        "StorageDescriptor": {
            "Columns": [{"Name": "id", "Type": "string"}, {"Name": "m", "Type": "array<struct<a:decimal(10,2)>>"}],
            "Location": "s3://offline/somewhere/data",
            "InputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
            "SerdeInfo": {"SerializationLibrary": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"},
        },
        "PartitionKeys": [{"Name": "year", "Type": "string"}],
        "Parameters": {"table_type": "ICEBERG", "projection.enabled": "true"},
    }});
    let seeds = vec![
        std::fs::read(groups.join("examples.json")).unwrap(),
        table.to_string().into_bytes(),
    ];
    let load = |directory: &Path| {
        let source = FilesSource::new(directory);
        if let Err(error) = runtime.block_on(source.load()) {
            assert_ne!(error.kind, Kind::Internal, "{error}");
        }
    };
    run("descriptions", &seeds, |input| {
        for file in [groups.join("examples.json"), tables.join("examples.json")] {
            let before = std::fs::read(&file).ok();
            std::fs::write(&file, input).unwrap();
            load(directory.path());
            match before {
                Some(before) => std::fs::write(&file, before).unwrap(),
                None => std::fs::remove_file(&file).unwrap(),
            }
        }
    });
}

#[test]
fn types_and_times() {
    let seeds = [
        "array<struct<a:map<string,decimal(38,10)>,b:timestamp>>",
        "2026-01-02T03:04:05.678901234+05:30",
        "1767225600.123456",
    ];
    let seeds: Vec<_> = seeds.iter().map(|text| text.as_bytes().to_vec()).collect();
    run("types_and_times", &seeds, |input| {
        let text = String::from_utf8_lossy(input);
        let _ = parse_hive_type(&text);
        if let Ok(instant) = Instant::parse(&text) {
            // What is read is written so that it reads the same again.
            assert_eq!(
                Instant::parse(&instant.to_string()).unwrap(),
                instant,
                "{text}"
            );
        }
    });
}
