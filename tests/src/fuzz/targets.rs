//! What clients and catalogs send, by kind. Whatever comes of a changed one is at most an error of the
//! client's own: an internal error is a failure here, since a panic of the server ends as one.

use std::path::Path;
use std::sync::Arc;
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
use featureflight_server::config::{Config, Secret};
use futures::TryStreamExt;
use prost::Message;
use tokio::runtime::Runtime;
use tonic::{Code, Status};

use super::Target;
use super::served::Served;
use crate::warehouse::write_examples;

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

/// What is sealed is worth keeping: a corpus outlives a process.
fn one_key(config: &mut Config) {
    config.server.signing_key = Some(Secret::new("the same key for every process of it"));
}

fn texts(seeds: &[&str]) -> Vec<Vec<u8>> {
    seeds.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// SQL, from its text to its rows: the guards, the planner, the operators.
#[must_use]
pub fn statements() -> Target {
    let mut served = Served::start(|config| {
        // What a change makes large is none of this target's business.
        config.engine.query_timeout.0 = Duration::from_secs(3);
    });
    let check = move |input: &[u8]| {
        let sql = String::from_utf8_lossy(input);
        if let Err(error) = served.prepare_in_process(&sql) {
            assert_ne!(error.kind, Kind::Internal, "{sql}: {error}");
        }
        // In a session of its own: down to the physical plan and the rows.
        served.reconnect();
        let answered = served.execute(&sql).and_then(|info| {
            let mut tickets = info
                .endpoint
                .into_iter()
                .filter_map(|endpoint| endpoint.ticket);
            tickets.try_for_each(|ticket| served.fetch(ticket))
        });
        if let Err(status) = answered {
            assert!(
                !matches!(status.code(), Code::Internal | Code::Unknown),
                "{sql}: {status}"
            );
        }
    };
    Target {
        name: "statements",
        seeds: texts(&STATEMENTS),
        check: Box::new(check),
    }
}

/// Arguments of our table functions.
#[must_use]
pub fn arguments() -> Target {
    let served = Served::start(|_| {});
    let check = move |input: &[u8]| {
        let text = String::from_utf8_lossy(input).replace('\'', "''");
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
            if let Err(error) = served.prepare_in_process(&sql) {
                assert_ne!(error.kind, Kind::Internal, "{sql}: {error}");
            }
        }
    };
    Target {
        name: "arguments",
        seeds: texts(&[
            "examples",
            "examples:v",
            "\"MixedCase\":\"ZipCode\"",
            "examples.id = id",
            "examples-fractional",
        ]),
        check: Box::new(check),
    }
}

/// Tickets of `DoGet`.
#[must_use]
pub fn tickets() -> Target {
    let mut served = Served::start(one_key);
    let info = served.execute("SELECT 1").unwrap();
    let ticket = info.endpoint[0].ticket.as_ref().unwrap();
    let good = ticket.ticket.to_vec();
    let inside = sealed(&good).unwrap();
    let seeds = vec![good.clone()];
    let check = move |input: &[u8]| {
        match served.fetch(Ticket::new(input.to_vec())) {
            // Protocol Buffers write one message in many ways: what is sealed is inside of it. Commands
            // that ask for metadata are their own tickets, and have nothing sealed.
            Ok(()) => {
                if let Some(taken) = sealed(input) {
                    assert_eq!(taken, inside, "a changed ticket was taken");
                }
            }
            Err(status) => {
                assert_ne!(input, good, "the ticket itself was not: {status}");
                blamed_on_the_client(&status);
            }
        }
    };
    Target {
        name: "tickets",
        seeds,
        check: Box::new(check),
    }
}

/// A message that is a command and nothing else.
fn alone(command: &impl ProstMessageExt) -> FlightData {
    let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
    FlightData::new().with_descriptor(descriptor)
}

/// What a ticket's envelope holds.
fn sealed(ticket: &[u8]) -> Option<Vec<u8>> {
    let any = Any::decode(ticket).ok()?;
    let inside: TicketStatementQuery = any.unpack().ok()??;
    Some(inside.statement_handle.to_vec())
}

/// Handles of prepared statements.
#[must_use]
pub fn handles() -> Target {
    let mut served = Served::start(one_key);
    let good = served.prepare("SELECT 1").to_vec();
    let seeds = vec![good.clone()];
    let check = move |input: &[u8]| {
        let command = CommandPreparedStatementQuery {
            prepared_statement_handle: input.to_vec().into(),
        };
        match served.info(&command) {
            Ok(_) => assert_eq!(input, good, "a changed handle was taken"),
            Err(status) => blamed_on_the_client(&status),
        }
    };
    Target {
        name: "handles",
        seeds,
        check: Box::new(check),
    }
}

/// Commands, as descriptors and as tickets.
#[must_use]
pub fn descriptors() -> Target {
    let mut served = Served::start(|_| {});
    let command = arrow_flight::sql::CommandGetTables {
        catalog: Some("featureflight".into()),
        db_schema_filter_pattern: Some("feat%".into()),
        table_name_filter_pattern: Some("_x\\%".into()),
        table_types: vec!["TABLE".into()],
        include_schema: true,
    };
    let check = move |input: &[u8]| {
        if let Err(status) = served.describe(input.to_vec()) {
            blamed_on_the_client(&status);
        }
        if let Err(status) = served.fetch(Ticket::new(input.to_vec())) {
            blamed_on_the_client(&status);
        }
    };
    Target {
        name: "descriptors",
        seeds: vec![command.as_any().encode_to_vec()],
        check: Box::new(check),
    }
}

/// Arrow messages of bound parameters and of uploads.
#[must_use]
pub fn arrow_messages() -> Target {
    let mut served = Served::start(|_| {});
    let handle = served.prepare("SELECT $1, $2, $3");
    let row = RecordBatch::try_from_iter([
        ("1", Arc::new(Int64Array::from(vec![7])) as ArrayRef),
        ("2", Arc::new(StringArray::from(vec!["seven"])) as ArrayRef),
        (
            "3",
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some([
                Some(7),
            ])])) as ArrayRef,
        ),
    ]);
    let encoder =
        FlightDataEncoderBuilder::new()
            .build(futures::stream::iter([Ok::<_, FlightError>(row.unwrap())]));
    let good: Vec<FlightData> = futures::executor::block_on(encoder.try_collect()).unwrap();
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
    let check = move |input: &[u8]| {
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
            if let Err(status) = served.put(messages) {
                blamed_on_the_client(&status);
            }
        }
    };
    Target {
        name: "arrow_messages",
        seeds,
        check: Box::new(check),
    }
}

/// What describes a feature group, and its table in Glue.
#[must_use]
pub fn descriptions() -> Target {
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
    let load = move |directory: &Path| {
        let source = FilesSource::new(directory);
        if let Err(error) = runtime.block_on(source.load()) {
            assert_ne!(error.kind, Kind::Internal, "{error}");
        }
    };
    let check = move |input: &[u8]| {
        for file in [groups.join("examples.json"), tables.join("examples.json")] {
            let before = std::fs::read(&file).ok();
            std::fs::write(&file, input).unwrap();
            load(directory.path());
            match before {
                Some(before) => std::fs::write(&file, before).unwrap(),
                None => std::fs::remove_file(&file).unwrap(),
            }
        }
    };
    Target {
        name: "descriptions",
        seeds,
        check: Box::new(check),
    }
}

/// Hive types, and times.
#[must_use]
pub fn types_and_times() -> Target {
    let seeds = texts(&[
        "array<struct<a:map<string,decimal(38,10)>,b:timestamp>>",
        "2026-01-02T03:04:05.678901234+05:30",
        "1767225600.123456",
    ]);
    let check = |input: &[u8]| {
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
    };
    Target {
        name: "types_and_times",
        seeds,
        check: Box::new(check),
    }
}
