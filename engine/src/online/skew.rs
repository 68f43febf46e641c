//! The relation `online_skew('g')`: a sample of a group's records, each with how its online store
//! and its state differ.
//!
//! The sample is the records whose identifiers have the smallest hashes: of those in the state, and
//! of those in the online store where it can list them. It is the same every time while the records
//! are the same. The state is read once, the history once more where values differ at one event time.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Float64Type, Int64Type, SchemaRef, TimestampMicrosecondType};
use async_trait::async_trait;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use featureflight_catalog::table::timestamp_type;
use featureflight_catalog::{Instant, Result};
use featureflight_online::record::fractional;
use featureflight_online::writes::read_online;
use featureflight_udf::{Skew, skew_schema};
use futures::TryStreamExt;
use tokio::sync::OnceCell;

use super::Online;
use super::exec::page;

pub(super) const MAX_SAMPLE: usize = 100_000;

/// Records looked up at once.
const TOGETHER: usize = 1_000;

#[derive(Debug)]
pub(super) struct Provider {
    online: Online,
    skew: Skew,
    /// The same for every run of the statement.
    answer: Arc<OnceCell<RecordBatch>>,
}

impl Provider {
    pub(super) fn new(online: Online, skew: Skew) -> Self {
        Self {
            online,
            skew,
            answer: Arc::default(),
        }
    }
}

#[async_trait]
impl TableProvider for Provider {
    fn schema(&self) -> SchemaRef {
        skew_schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Pins the files of state and history.
    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> PlanResult<Arc<dyn ExecutionPlan>> {
        let Skew { table, sample, .. } = &self.skew;
        let features: Vec<usize> = (0..table.state_schema.fields().len()).collect();
        let deleted = table.history_schema.fields().len() - 1;
        let versions: Vec<usize> = features.iter().copied().chain([deleted]).collect();
        let compare = Compare {
            online: self.online.clone(),
            sample: *sample,
            identifier: table.record_identifier,
            event_time: table.event_time,
            state: self
                .skew
                .state
                .scan(state, Some(&features), &[], None)
                .await?,
            history: self
                .skew
                .history
                .scan(state, Some(&versions), &[], None)
                .await?,
        };
        let partition = Arc::new(Comparison {
            compare: Arc::new(compare),
            schema: skew_schema(),
            answer: Arc::clone(&self.answer),
        });
        let table = StreamingTable::try_new(skew_schema(), vec![partition])?;
        table.scan(state, projection, &[], limit).await
    }
}

#[derive(Debug)]
struct Comparison {
    compare: Arc<Compare>,
    schema: SchemaRef,
    answer: Arc<OnceCell<RecordBatch>>,
}

impl PartitionStream for Comparison {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (compare, answer) = (Arc::clone(&self.compare), Arc::clone(&self.answer));
        let rows = futures::stream::once(async move {
            let rows = answer.get_or_try_init(|| compare.run(&context)).await?;
            Ok::<_, DataFusionError>(rows.clone())
        });
        let schema = Arc::clone(&self.schema);
        Box::pin(RecordBatchStreamAdapter::new(schema, rows))
    }
}

/// A record on one side.
#[derive(Debug, Clone, PartialEq)]
struct Record {
    /// In microseconds.
    event_time: i64,
    /// As text, in the definition's order.
    values: Vec<Option<String>>,
}

/// How a record's two sides differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Equal,
    MissingOnline,
    MissingOffline,
    /// At one event time, and no version of that time is what is online.
    ValuesDiffer,
    /// At one event time there are several versions: the state has the last, the online store
    /// another one.
    Tie,
    NewerOnline,
    NewerOffline,
    /// It is not online since it has outlived the group's time to live.
    Expired,
}

impl Class {
    fn name(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::MissingOnline => "missing online",
            Self::MissingOffline => "missing offline",
            Self::ValuesDiffer => "values differ",
            Self::Tie => "tie",
            Self::NewerOnline => "newer online",
            Self::NewerOffline => "newer offline",
            Self::Expired => "expired",
        }
    }
}

/// Hash and identifier.
type Key = (u64, String);

#[derive(Debug)]
struct Compare {
    online: Online,
    sample: usize,
    /// Positions in the state's schema.
    identifier: usize,
    event_time: usize,
    state: Arc<dyn ExecutionPlan>,
    history: Arc<dyn ExecutionPlan>,
}

impl Compare {
    async fn run(&self, context: &Arc<TaskContext>) -> PlanResult<RecordBatch> {
        let mut offline = self.state(context).await?;
        let mut chosen: Vec<Key> = offline.keys().cloned().collect();
        chosen.extend(self.listed().await?);
        chosen.sort_unstable();
        chosen.dedup();
        chosen.truncate(self.sample);
        let identifiers: Vec<String> = chosen.iter().map(|(_, id)| id.clone()).collect();
        let mut online = HashMap::new();
        for some in identifiers.chunks(TOGETHER) {
            let rows = read_online(self.online.store.as_ref(), &self.online.group, some).await?;
            online.extend(self.records(&rows));
        }
        let now = Instant::now();
        let mut rows: Vec<Row> = chosen
            .into_iter()
            .map(|key| {
                let (offline, online) = (offline.remove(&key), online.remove(&key.1));
                let class = self.class(offline.as_ref(), online.as_ref(), now);
                let identifier = key.1;
                Row {
                    identifier,
                    class,
                    online,
                    offline,
                }
            })
            .collect();
        self.settle_ties(&mut rows, context).await?;
        self.answer(&rows)
    }

    /// The records of the state that are in the sample.
    async fn state(&self, context: &Arc<TaskContext>) -> PlanResult<BTreeMap<Key, Record>> {
        let mut sample = BTreeMap::new();
        let mut batches = execute_stream(Arc::clone(&self.state), Arc::clone(context))?;
        while let Some(batch) = batches.try_next().await? {
            for (identifier, record) in self.records(&batch) {
                sample.insert(key(identifier), record);
                if sample.len() > self.sample {
                    sample.pop_last();
                }
            }
        }
        Ok(sample)
    }

    /// The records of the online store that are in the sample, if it can list them.
    async fn listed(&self) -> Result<BTreeSet<Key>> {
        let mut sample = BTreeSet::new();
        let Some(records) = self.online.store.list(&self.online.group.puts).await? else {
            return Ok(sample);
        };
        let mut after = None;
        loop {
            let found = page(&records, after.take()).await?;
            after = found.last().map(|last| last.identifier.clone());
            if after.is_none() {
                return Ok(sample);
            }
            for record in found {
                sample.insert(key(record.identifier));
                if sample.len() > self.sample {
                    sample.pop_last();
                }
            }
        }
    }

    /// The rows of a batch that begins with the columns of the state.
    fn records(&self, batch: &RecordBatch) -> Vec<(String, Record)> {
        let features = self.online.group.shape.state_schema.fields().len();
        let times = batch.column(self.event_time);
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let record = |row: usize| {
            let columns = batch.columns().iter().take(features);
            let values: Vec<_> = columns.map(|column| text(column, row)).collect();
            let identifier = values[self.identifier].clone().unwrap_or_default();
            let record = Record {
                event_time: times.value(row),
                values,
            };
            (identifier, record)
        };
        (0..batch.num_rows()).map(record).collect()
    }

    fn class(&self, offline: Option<&Record>, online: Option<&Record>, now: Instant) -> Class {
        use std::cmp::Ordering::{Equal, Greater, Less};
        match (offline, online) {
            (Some(offline), Some(online)) => match online.event_time.cmp(&offline.event_time) {
                Greater => Class::NewerOnline,
                Less => Class::NewerOffline,
                Equal if online.values == offline.values => Class::Equal,
                Equal => Class::ValuesDiffer,
            },
            (Some(offline), None) => {
                let ttl = self.online.group.ttl;
                let expiry =
                    ttl.and_then(|ttl| ttl.expiry(Instant::from_micros(offline.event_time)));
                if expiry.is_some_and(|expiry| expiry <= now) {
                    Class::Expired
                } else {
                    Class::MissingOnline
                }
            }
            (None, _) => Class::MissingOffline,
        }
    }

    /// Tells ties from other differences.
    async fn settle_ties(&self, rows: &mut [Row], context: &Arc<TaskContext>) -> PlanResult<()> {
        let differing = rows.iter().filter(|row| row.class == Class::ValuesDiffer);
        let wanted: HashSet<String> = differing.map(|row| row.identifier.clone()).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let mut versions: HashMap<String, Vec<Record>> = HashMap::new();
        let mut batches = execute_stream(Arc::clone(&self.history), Arc::clone(context))?;
        while let Some(batch) = batches.try_next().await? {
            let batch = self.puts_of(&batch, &wanted)?;
            for (identifier, record) in self.records(&batch) {
                versions.entry(identifier).or_default().push(record);
            }
        }
        for row in rows
            .iter_mut()
            .filter(|row| row.class == Class::ValuesDiffer)
        {
            let known = versions.get(&row.identifier);
            let is_known = |online: &Record| known.is_some_and(|known| known.contains(online));
            if row.online.as_ref().is_some_and(is_known) {
                row.class = Class::Tie;
            }
        }
        Ok(())
    }

    /// The versions of `wanted` records that are no deletes.
    fn puts_of(&self, batch: &RecordBatch, wanted: &HashSet<String>) -> PlanResult<RecordBatch> {
        let identifiers = batch.column(self.identifier);
        let deleted = batch.column(batch.num_columns() - 1).as_boolean();
        let is_wanted = |row: usize| {
            let identifier = text(identifiers, row);
            !deleted.value(row) && identifier.is_some_and(|id| wanted.contains(&id))
        };
        let keep: BooleanArray = (0..batch.num_rows())
            .map(|row| Some(is_wanted(row)))
            .collect();
        Ok(filter_record_batch(batch, &keep)?)
    }

    fn answer(&self, rows: &[Row]) -> PlanResult<RecordBatch> {
        let times = |of: fn(&Row) -> Option<&Record>| -> ArrayRef {
            let times = rows
                .iter()
                .map(|row| of(row).map(|record| record.event_time));
            let times: TimestampMicrosecondArray = times.collect();
            Arc::new(times.with_data_type(timestamp_type()))
        };
        let texts = |of: &dyn Fn(&Row) -> Option<String>| -> ArrayRef {
            Arc::new(rows.iter().map(of).collect::<StringArray>())
        };
        let columns = vec![
            texts(&|row| Some(row.identifier.clone())),
            texts(&|row| Some(row.class.name().to_owned())),
            times(|row| row.online.as_ref()),
            times(|row| row.offline.as_ref()),
            texts(&|row| self.differing(row)),
        ];
        Ok(RecordBatch::try_new(skew_schema(), columns)?)
    }

    /// The names of the features that differ where both sides have the record.
    fn differing(&self, row: &Row) -> Option<String> {
        let (online, offline) = (row.online.as_ref()?, row.offline.as_ref()?);
        let fields = self.online.group.shape.state_schema.fields().iter();
        let values = online.values.iter().zip(&offline.values);
        let differing: Vec<&str> = fields
            .zip(values)
            .filter(|(_, (online, offline))| online != offline)
            .map(|(field, _)| field.name().as_str())
            .collect();
        (!differing.is_empty()).then(|| differing.join(", "))
    }
}

fn key(identifier: String) -> Key {
    let mut hasher = DefaultHasher::new();
    identifier.hash(&mut hasher);
    (hasher.finish(), identifier)
}

struct Row {
    identifier: String,
    class: Class,
    online: Option<Record>,
    offline: Option<Record>,
}

/// A value of the state as the text that online stores keep, times in microseconds.
fn text(column: &ArrayRef, row: usize) -> Option<String> {
    if column.is_null(row) {
        return None;
    }
    Some(match column.data_type() {
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Float64 => fractional(column.as_primitive::<Float64Type>().value(row)),
        DataType::Timestamp(..) => {
            let micros = column.as_primitive::<TimestampMicrosecondType>();
            micros.value(row).to_string()
        }
        _ => column.as_string_view().value(row).to_owned(),
    })
}
