//! A catalog in memory and statements against it: a few groups with awkward names, the contract's
//! worked example as their history, and the answers as text.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::catalog::{
    CatalogProvider, MemTable, MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider,
};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast;
use featureflight_catalog::listing::Lister;
use featureflight_catalog::model::{FeatureDefinition, FeatureGroup, FeatureType};
use featureflight_catalog::pin::Pin;
use featureflight_catalog::scan::history::ScanContext;
use featureflight_catalog::scan::versions::FileReader;
use featureflight_catalog::snapshot::{CatalogSnapshot, GroupEntry, RawEntry, Serving};
use featureflight_catalog::storage::Location;
use featureflight_catalog::table::{FeatureTable, FileSet, RawTable, timestamp_type};
use featureflight_catalog::{Error, Instant, Kind, Result};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowWriter;

use crate::clock::Clocks;
use crate::context::{StatementContext, TempView};
use crate::planner::{Planned, extend, plan};

/// `(id, event second, value, api second, write second, deleted)`.
type Row = (&'static str, i64, Option<&'static str>, i64, i64, bool);

/// The worked example of the contract.
pub(super) const WORKED: [Row; 9] = [
    ("A", 100, Some("a1"), 100, 1000, false),
    ("A", 200, Some("a2"), 200, 1100, false),
    ("A", 200, Some("a2b"), 210, 1110, false),
    ("A", 150, Some("a15"), 900, 2000, false),
    ("B", 100, Some("b1"), 100, 1000, false),
    ("B", 300, None, 300, 1200, true),
    ("C", 100, Some("c1"), 100, 1000, false),
    ("C", 300, None, 300, 1200, true),
    ("C", 400, Some("c4"), 400, 1300, false),
];

/// The events of the contract's worked example, as a query.
pub(super) const EVENTS: &str = "SELECT e, id, to_timestamp_micros(s * 1000000) AS ts FROM (VALUES \
    ('e1','A',160), ('e2','A',200), ('e3','A',250), ('e4','B',250), ('e5','B',350), ('e6','C',250), \
    ('e7','C',450), ('e8','D',100)) AS v(e, id, s)";

pub(super) fn at(second: i64) -> Instant {
    Instant::from_micros(second * 1_000_000)
}

/// A session and the catalog it sees.
pub(super) struct Rig {
    pub(super) catalog: Arc<CatalogSnapshot>,
    pub(super) clocks: Clocks,
    pub(super) schema: String,
    pub(super) views: BTreeMap<String, TempView>,
    pub(super) started: Instant,
}

impl Rig {
    /// Groups `customers` (text identifier `id`, feature `v`), `Orders` (integer identifier
    /// `orderId`, event time in seconds `At`, features `total` and `v`), `my-group`, `twin`
    /// and `TWIN`, `forever`, whose event times end with the year 9999, and `broken`, which is not served; raw table `customers_1` of `customers`.
    pub(super) async fn new() -> Self {
        let store = Arc::new(InMemory::new());
        let mut groups = BTreeMap::new();
        for name in ["customers", "my-group", "twin", "TWIN", "forever"] {
            let table = table(&store, name, &customers_definitions(), "id", "event_time");
            groups.insert(name.to_owned(), served(table));
        }
        write(&store, "customers", &customers_batch(&WORKED)).await;
        write(&store, "my-group", &customers_batch(&WORKED[..1])).await;
        let forever = [
            ("A", 253_402_300_799, Some("end"), 100, 1000, false),
            WORKED[1],
        ];
        write(&store, "forever", &customers_batch(&forever[..])).await;
        let orders = table(&store, "Orders", &orders_definitions(), "orderId", "At");
        write(&store, "Orders", &orders_batch()).await;
        groups.insert("Orders".to_owned(), served(orders));
        let broken = table(
            &store,
            "broken",
            &customers_definitions(),
            "id",
            "event_time",
        );
        let reason = "it is an Iceberg table, which this version does not read".to_owned();
        let broken = GroupEntry {
            group: Arc::clone(&broken.group),
            serving: Serving::Unavailable(reason),
        };
        groups.insert("broken".to_owned(), broken);
        let raw = raw_table(&store);
        let catalog = CatalogSnapshot {
            groups,
            raw,
            taken_at: None,
        };
        Self {
            catalog: Arc::new(catalog),
            clocks: Clocks::default(),
            schema: "features".to_owned(),
            views: BTreeMap::new(),
            started: at(5000),
        }
    }

    pub(super) fn view(&mut self, name: &str, sql: &str) {
        let statement = crate::dialect::parse(sql).unwrap();
        let datafusion::sql::parser::Statement::Statement(statement) = statement else {
            panic!("{sql} is no statement")
        };
        let ast::Statement::Query(query) = *statement else {
            panic!("{sql} is no query")
        };
        let view = TempView {
            query,
            columns: vec![],
            schema: self.schema.clone(),
        };
        self.views.insert(name.to_owned(), view);
    }

    pub(super) fn context(&self, parameters: Option<Vec<ScalarValue>>) -> Arc<StatementContext> {
        let pin = Pin::new(Arc::new(Lister::new(Duration::ZERO)), self.started);
        let scan = ScanContext {
            pin: Arc::new(pin),
            reader: Arc::new(FileReader::new(1 << 20)),
        };
        Arc::new(StatementContext {
            catalog: Arc::clone(&self.catalog),
            scan,
            clocks: self.clocks,
            schema: self.schema.clone(),
            views: Arc::new(self.views.clone()),
            tables: Arc::default(),
            online: None,
            parameters,
        })
    }

    pub(super) fn session() -> SessionContext {
        let config = SessionConfig::new()
            .with_information_schema(true)
            .with_target_partitions(2)
            .with_create_default_catalog_and_schema(false);
        let builder = SessionStateBuilder::new()
            .with_config(config)
            .with_default_features();
        let context = SessionContext::new_with_state(extend(builder).build());
        let system = MemorySchemaProvider::new();
        let names = RecordBatch::try_from_iter([(
            "name",
            Arc::new(StringArray::from(vec!["customers", "Orders"])) as ArrayRef,
        )])
        .unwrap();
        let table = MemTable::try_new(names.schema(), vec![vec![names]]).unwrap();
        system
            .register_table("feature_groups".to_owned(), Arc::new(table))
            .unwrap();
        let catalog = MemoryCatalogProvider::new();
        catalog.register_schema("system", Arc::new(system)).unwrap();
        context.register_catalog("featureflight", Arc::new(catalog));
        context
    }

    pub(super) async fn plan(
        &self,
        sql: &str,
        parameters: Option<Vec<ScalarValue>>,
    ) -> Result<Planned> {
        let statement = crate::dialect::parse(sql)?;
        plan(
            &Self::session().state(),
            statement,
            &self.context(parameters),
        )
        .await
    }

    /// The answer of `sql`, a line per row, sorted.
    pub(super) async fn rows(&self, sql: &str) -> Vec<String> {
        self.try_rows(sql, vec![])
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    pub(super) async fn rows_with(&self, sql: &str, parameters: Vec<ScalarValue>) -> Vec<String> {
        self.try_rows(sql, parameters)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    pub(super) async fn try_rows(
        &self,
        sql: &str,
        parameters: Vec<ScalarValue>,
    ) -> Result<Vec<String>> {
        let planned = self.plan(sql, Some(parameters)).await?;
        run(planned.plan).await
    }

    /// The error `sql` ends with, in planning or in running.
    pub(super) async fn error(&self, sql: &str) -> Error {
        match self.try_rows(sql, vec![]).await {
            Ok(rows) => panic!("{sql} answered {rows:?}"),
            Err(error) => error,
        }
    }

    /// The message of the `InvalidArgument` error `sql` ends with.
    pub(super) async fn invalid(&self, sql: &str) -> String {
        let error = self.error(sql).await;
        assert_eq!(error.kind, Kind::InvalidArgument, "{sql}: {error}");
        error.message
    }

    /// Column names of the answer.
    pub(super) async fn columns(&self, sql: &str) -> Vec<String> {
        let planned = self.plan(sql, Some(vec![])).await;
        let planned = planned.unwrap_or_else(|error| panic!("{sql}: {error}"));
        planned
            .plan
            .schema()
            .fields()
            .iter()
            .map(|field| field.name().clone())
            .collect()
    }
}

pub(super) async fn run(plan: LogicalPlan) -> Result<Vec<String>> {
    let frame = Rig::session().execute_logical_plan(plan).await;
    let batches = match frame {
        Ok(frame) => frame.collect().await,
        Err(error) => Err(error),
    }
    .map_err(crate::planner::error::classify)?;
    let mut rows = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let cell = |column: &ArrayRef| {
                if column.is_null(row) {
                    return "-".to_owned();
                }
                arrow::util::display::array_value_to_string(column, row).unwrap()
            };
            rows.push(
                batch
                    .columns()
                    .iter()
                    .map(cell)
                    .collect::<Vec<_>>()
                    .join(" "),
            );
        }
    }
    rows.sort();
    Ok(rows)
}

fn served(table: Arc<FeatureTable>) -> GroupEntry {
    GroupEntry {
        group: Arc::clone(&table.group),
        serving: Serving::Served(table),
    }
}

fn definition(name: &str, feature_type: FeatureType) -> FeatureDefinition {
    FeatureDefinition {
        feature_name: name.to_owned(),
        feature_type,
        other: Default::default(),
    }
}

fn customers_definitions() -> Vec<FeatureDefinition> {
    vec![
        definition("id", FeatureType::String),
        definition("event_time", FeatureType::String),
        definition("v", FeatureType::String),
        definition("Age", FeatureType::Integral),
    ]
}

fn orders_definitions() -> Vec<FeatureDefinition> {
    vec![
        definition("orderId", FeatureType::Integral),
        definition("At", FeatureType::Fractional),
        definition("total", FeatureType::Fractional),
        definition("v", FeatureType::String),
    ]
}

fn table(
    store: &Arc<InMemory>,
    name: &str,
    definitions: &[FeatureDefinition],
    identifier: &str,
    event_time: &str,
) -> Arc<FeatureTable> {
    let group = FeatureGroup {
        feature_group_name: name.to_owned(),
        record_identifier_feature_name: identifier.to_owned(),
        event_time_feature_name: event_time.to_owned(),
        feature_definitions: definitions.to_vec(),
        feature_group_arn: None,
        offline_store_config: None,
        feature_group_status: None,
        description: None,
        other: Default::default(),
    };
    Arc::new(FeatureTable::new(Arc::new(group), location(store, name)).unwrap())
}

fn location(store: &Arc<InMemory>, name: &str) -> Location {
    let object_store: Arc<dyn ObjectStore> = Arc::<InMemory>::clone(store);
    Location {
        store: object_store,
        prefix: Path::from(format!("{name}/data")),
        url: format!("s3://bucket/{name}/data"),
        rewritten: false,
    }
}

fn raw_table(store: &Arc<InMemory>) -> BTreeMap<String, BTreeMap<String, RawEntry>> {
    let fields = vec![
        Field::new("id", DataType::Utf8View, true),
        Field::new("event_time", DataType::Utf8View, true),
        Field::new("v", DataType::Utf8View, true),
        Field::new("age", DataType::Int64, true),
        Field::new("write_time", timestamp_type(), true),
        Field::new("api_invocation_time", timestamp_type(), true),
        Field::new("is_deleted", DataType::Boolean, true),
    ];
    let table = RawTable {
        database: "sagemaker_featurestore".to_owned(),
        name: "customers_1".to_owned(),
        files: FileSet {
            location: location(store, "customers"),
            hourly: false,
            group: None,
        },
        schema: Arc::new(Schema::new(fields)),
        partition_keys: 0,
        feature_group: Some("customers".to_owned()),
    };
    let entry = RawEntry {
        database: table.database.clone(),
        name: table.name.clone(),
        feature_group: table.feature_group.clone(),
        serving: Ok(Arc::new(table)),
    };
    let tables = BTreeMap::from([("customers_1".to_owned(), entry)]);
    BTreeMap::from([("sagemaker_featurestore".to_owned(), tables)])
}

fn times(seconds: impl Iterator<Item = i64>) -> ArrayRef {
    let micros = seconds.map(|second| second * 1_000_000);
    Arc::new(TimestampMicrosecondArray::from_iter_values(micros).with_timezone("UTC"))
}

fn customers_batch(rows: &[Row]) -> RecordBatch {
    let texts = |text: fn(&Row) -> Option<String>| {
        Arc::new(rows.iter().map(text).collect::<StringArray>()) as ArrayRef
    };
    let age: Int64Array = rows.iter().map(|row| row.2.map(|_| row.1 / 10)).collect();
    let deleted: BooleanArray = rows.iter().map(|row| Some(row.5)).collect();
    RecordBatch::try_from_iter_with_nullable([
        ("id", texts(|row| Some(row.0.to_owned())), true),
        ("event_time", texts(|row| Some(at(row.1).to_string())), true),
        ("v", texts(|row| row.2.map(str::to_owned)), true),
        ("Age", Arc::new(age) as ArrayRef, true),
        ("write_time", times(rows.iter().map(|row| row.4)), false),
        (
            "api_invocation_time",
            times(rows.iter().map(|row| row.3)),
            false,
        ),
        ("is_deleted", Arc::new(deleted), false),
    ])
    .unwrap()
}

/// Order 1 was 10.5 at second 100 and 11.5 at second 200; order 2 was 20 at second 150.
fn orders_batch() -> RecordBatch {
    let ids = Int64Array::from(vec![1, 1, 2]);
    let seconds = Float64Array::from(vec![100.0, 200.0, 150.0]);
    let totals = Float64Array::from(vec![10.5, 11.5, 20.0]);
    let values = StringArray::from(vec!["o1", "o2", "p1"]);
    RecordBatch::try_from_iter_with_nullable([
        ("orderId", Arc::new(ids) as ArrayRef, true),
        ("At", Arc::new(seconds), true),
        ("total", Arc::new(totals), true),
        ("v", Arc::new(values), true),
        ("write_time", times([1000, 1100, 1000].into_iter()), false),
        (
            "api_invocation_time",
            times([1000, 1100, 1000].into_iter()),
            false,
        ),
        (
            "is_deleted",
            Arc::new(BooleanArray::from(vec![false; 3])),
            false,
        ),
    ])
    .unwrap()
}

async fn write(store: &InMemory, name: &str, batch: &RecordBatch) {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    // Event times that belong to other hours lie outside of all of them.
    let hour = if name == "forever" {
        ""
    } else {
        "year=1970/month=01/day=01/hour=00/"
    };
    let key = format!("{name}/data/{hour}part.parquet");
    store.put(&Path::from(key), bytes.into()).await.unwrap();
}
