//! Reads a small warehouse back with Arrow's Parquet reader and holds it against the contract of
//! the offline store and against its own facts.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMicrosecondType};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, Repetition, Type as PhysicalType};

use super::*;
use definition::{ACCOUNT, REGION};

/// Long enough for all of the story.
const SMALL: Scale = Scale {
    customers: 1_200,
    days: 10,
};
const TINY: Scale = Scale {
    customers: 100,
    days: 1,
};

fn make(scale: Scale) -> (tempfile::TempDir, Warehouse) {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("warehouse");
    let warehouse =
        Warehouse::open_or_make(&dir, scale, &mut |_| ControlFlow::Continue(())).unwrap();
    (home, warehouse)
}

#[test]
fn a_small_warehouse_is_what_it_says() {
    let (_home, warehouse) = make(SMALL);
    files_lie_and_are_named_as_the_store_does_it(&warehouse);
    columns_are_those_of_their_writer(&warehouse);
    the_facts_are_true(&warehouse);
    the_story_has_its_late_rows_duplicates_and_returns(&warehouse);
    the_wrong_amounts_are_a_hundred_times_the_right_ones(&warehouse);
    tombstones_hold_nothing_but_identifier_and_time(&warehouse);
}

/// Every file below `dir`, relative to it, in order.
fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path.strip_prefix(dir).unwrap().to_owned());
            }
        }
    }
    files.sort();
    files
}

fn read(path: &Path) -> (ParquetRecordBatchReaderBuilder<File>, Vec<RecordBatch>) {
    let builder = || ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    (
        builder(),
        builder().build().unwrap().map(Result::unwrap).collect(),
    )
}

fn micros(batch: &RecordBatch, column: &str) -> Vec<i64> {
    let micros = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let times = cast(batch.column_by_name(column).unwrap(), &micros).unwrap();
    assert_eq!(times.null_count(), 0);
    times
        .as_primitive::<TimestampMicrosecondType>()
        .values()
        .to_vec()
}

fn event_micros(batch: &RecordBatch, column: &str) -> Vec<i64> {
    let values = batch.column_by_name(column).unwrap();
    match values.data_type() {
        DataType::Float64 => values
            .as_primitive::<arrow::datatypes::Float64Type>()
            .values()
            .iter()
            .map(|seconds| (seconds * 1000.0).round() as i64 * 1000)
            .collect(),
        _ => values
            .as_string::<i32>()
            .iter()
            .map(|text| {
                let text = text.unwrap();
                assert!(text.ends_with('Z'), "{text}");
                chrono::DateTime::parse_from_rfc3339(text)
                    .unwrap()
                    .timestamp_micros()
            })
            .collect(),
    }
}

fn files_lie_and_are_named_as_the_store_does_it(warehouse: &Warehouse) {
    let mut spark = 0;
    for definition in [&CUSTOMERS, &ORDERS, &CARD_RISK] {
        let data = warehouse.dir.join("s3").join(definition.data_prefix());
        assert!(data.ends_with(format!(
            "{ACCOUNT}/sagemaker/{REGION}/offline-store/{}-{}/data",
            definition.name, definition.created
        )));
        let (parquet, others): (Vec<_>, Vec<_>) = files_below(&data)
            .into_iter()
            .partition(|p| p.extension().unwrap() == "parquet");
        assert_eq!(others.len(), 1, "one placeholder: {others:?}");
        assert_eq!(fs::metadata(data.join(&others[0])).unwrap().len(), 0);
        let facts = &warehouse.facts.groups[definition.name];
        assert_eq!(parquet.len() as u64, facts.files, "{}", definition.name);
        for file in parquet {
            let (_, batches) = read(&data.join(&file));
            let events: Vec<_> = batches
                .iter()
                .flat_map(|b| event_micros(b, definition.features[1].name))
                .collect();
            let latest = *events.iter().max().unwrap();
            let folder = utc(latest)
                .format("year=%Y/month=%m/day=%d/hour=%H")
                .to_string();
            assert_eq!(file.parent().unwrap(), Path::new(&folder));
            assert!(
                events
                    .iter()
                    .all(|event| event.div_euclid(HOUR) == latest.div_euclid(HOUR))
            );
            let name = file.file_name().unwrap().to_str().unwrap();
            if let Some(rest) = name.strip_prefix("part-0000") {
                assert_eq!(
                    rest.len(),
                    "0-".len() + 36 + ".c000.parquet".len(),
                    "{name}"
                );
                spark += 1;
            } else {
                let stem = name.strip_suffix(".parquet").unwrap();
                let (time, letters) = stem.split_once('_').unwrap();
                assert_eq!(time, utc(latest).format("%Y%m%dT%H%M%SZ").to_string());
                assert!(letters.len() == 16 && letters.chars().all(|c| c.is_ascii_alphanumeric()));
            }
        }
    }
    assert!(spark > 20, "{spark} files of Spark jobs");
}

fn columns_are_those_of_their_writer(warehouse: &Warehouse) {
    let mut seen = BTreeMap::<(&str, bool, usize), u32>::new();
    for definition in [&CUSTOMERS, &ORDERS, &CARD_RISK] {
        let data = warehouse.dir.join("s3").join(definition.data_prefix());
        for file in files_below(&data)
            .iter()
            .filter(|p| p.extension().unwrap() == "parquet")
        {
            let spark = file
                .file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("part-");
            let (builder, batches) = read(&data.join(file));
            let group = builder.metadata().row_group(0);
            let columns: Vec<_> = group
                .columns()
                .iter()
                .map(parquet::file::metadata::ColumnChunkMetaData::column_descr)
                .collect();
            let names: Vec<_> = columns.iter().map(|c| c.name()).collect();
            let (features, system) = names.split_at(names.len() - 3);
            let mut expected: Vec<_> = definition.features[..features.len()]
                .iter()
                .map(|f| f.name)
                .collect();
            if spark {
                let event_time = expected.remove(1);
                expected.push(event_time);
                assert_eq!(system, ["api_invocation_time", "write_time", "is_deleted"]);
            } else {
                assert_eq!(system, ["write_time", "api_invocation_time", "is_deleted"]);
            }
            assert_eq!(features, expected);
            for column in &columns[features.len()..] {
                let required =
                    column.self_type().get_basic_info().repetition() == Repetition::REQUIRED;
                assert_eq!(required, spark);
            }
            let time = columns[features.len()].physical_type();
            assert_eq!(
                time,
                if spark {
                    PhysicalType::INT96
                } else {
                    PhysicalType::INT64
                }
            );
            let codec = group.column(0).compression();
            assert_eq!(codec == Compression::UNCOMPRESSED, spark);
            let write_times: BTreeSet<_> = batches
                .iter()
                .flat_map(|b| micros(b, "write_time"))
                .collect();
            assert_eq!(write_times.len(), 1, "one write time per file");
            let whole_seconds = batches
                .iter()
                .flat_map(|b| micros(b, "api_invocation_time"))
                .all(|api| api % version::SECOND == 0);
            assert!(spark || whole_seconds);
            *seen
                .entry((definition.name, spark, features.len()))
                .or_default() += 1;
        }
    }
    // Both writers, and card-risk before and after its last feature came.
    for key in [
        ("customers", true, 8),
        ("customers", false, 8),
        ("orders", false, 7),
    ] {
        assert!(seen.contains_key(&key), "{key:?} in {seen:?}");
    }
    for key in [(true, 6), (true, 7), (false, 6), (false, 7)] {
        assert!(
            seen.contains_key(&("card-risk", key.0, key.1)),
            "{key:?} in {seen:?}"
        );
    }
}

/// A version as read back: event time, api invocation time, write time, is it a tombstone.
type Ranked = (i64, i64, i64, bool);

fn versions(warehouse: &Warehouse, definition: &Definition) -> HashMap<String, Vec<Ranked>> {
    let data = warehouse.dir.join("s3").join(definition.data_prefix());
    let mut versions = HashMap::<String, Vec<Ranked>>::new();
    for file in files_below(&data)
        .iter()
        .filter(|p| p.extension().unwrap() == "parquet")
    {
        for batch in read(&data.join(file)).1 {
            let ids = batch
                .column_by_name(definition.features[0].name)
                .unwrap()
                .as_string::<i32>();
            let events = event_micros(&batch, definition.features[1].name);
            let (api, write) = (
                micros(&batch, "api_invocation_time"),
                micros(&batch, "write_time"),
            );
            let deleted = batch.column_by_name("is_deleted").unwrap().as_boolean();
            for row in 0..batch.num_rows() {
                assert!(api[row] <= write[row], "heard of before it was written");
                let version = (events[row], api[row], write[row], deleted.value(row));
                versions
                    .entry(ids.value(row).to_owned())
                    .or_default()
                    .push(version);
            }
        }
    }
    versions
}

fn the_facts_are_true(warehouse: &Warehouse) {
    for definition in [&CUSTOMERS, &ORDERS, &CARD_RISK] {
        let versions = versions(warehouse, definition);
        let newest = versions.values().map(|all| all.iter().max().unwrap());
        let all = || versions.values().flatten();
        let facts = &warehouse.facts.groups[definition.name];
        assert_eq!(all().count() as u64, facts.versions);
        assert_eq!(all().filter(|v| v.3).count() as u64, facts.tombstones);
        assert_eq!(versions.len() as u64, facts.records);
        assert_eq!(newest.filter(|v| !v.3).count() as u64, facts.live);
    }
    let customers = &warehouse.facts.groups["customers"];
    assert!(
        customers.tombstones > 0 && customers.live < customers.records,
        "{customers:?}"
    );
}

fn the_story_has_its_late_rows_duplicates_and_returns(warehouse: &Warehouse) {
    let customers = versions(warehouse, &CUSTOMERS);
    let service = |v: &&Ranked| v.0 > story::START;
    let late = customers
        .values()
        .flatten()
        .filter(service)
        .filter(|v| v.2 - v.0 > 6 * HOUR);
    assert!(late.count() > 5);

    let Returned {
        customer_id,
        left,
        returned,
    } = warehouse.facts.examples.returned.clone().unwrap();
    let mut history = customers[&customer_id].clone();
    history.sort_unstable();
    assert!(history.iter().any(|v| v.0 == left && v.3));
    assert!(history.iter().any(|v| v.0 == returned && !v.3));

    let orders = versions(warehouse, &ORDERS);
    let mut duplicates = 0;
    for all in orders.values() {
        let times: BTreeSet<_> = all.iter().map(|v| v.0).collect();
        duplicates += all.len() - times.len();
    }
    assert!(duplicates > 20, "{duplicates}");
    let overcharged = warehouse.facts.examples.overcharged.clone().unwrap();
    let (from, to) = story::FAULT;
    let faulty = orders[&overcharged]
        .iter()
        .filter(|v| (from..to).contains(&v.0))
        .count();
    assert_eq!(faulty % 2, 0, "each faulty order was replayed");
}

fn the_wrong_amounts_are_a_hundred_times_the_right_ones(warehouse: &Warehouse) {
    let data = warehouse.dir.join("s3").join(ORDERS.data_prefix());
    let mut amounts = HashMap::<(String, i64), BTreeSet<i64>>::new();
    for file in files_below(&data)
        .iter()
        .filter(|p| p.extension().unwrap() == "parquet")
    {
        for batch in read(&data.join(file)).1 {
            let ids = batch.column(0).as_string::<i32>();
            let cents = batch.column_by_name("last_order_amount").unwrap();
            let cents = cents.as_primitive::<arrow::datatypes::Float64Type>();
            for (row, event) in event_micros(&batch, "event_time").into_iter().enumerate() {
                let cents = (cents.value(row) * 100.0).round() as i64;
                amounts
                    .entry((ids.value(row).to_owned(), event))
                    .or_default()
                    .insert(cents);
            }
        }
    }
    let (from, to) = story::FAULT;
    for ((customer, event), cents) in amounts {
        let cents: Vec<_> = cents.into_iter().collect();
        if (from..to).contains(&event) {
            assert!(
                cents.len() == 2 && cents[1] == 100 * cents[0],
                "{customer} {cents:?}"
            );
        } else {
            assert_eq!(cents.len(), 1, "{customer}");
        }
    }
}

fn tombstones_hold_nothing_but_identifier_and_time(warehouse: &Warehouse) {
    let data = warehouse.dir.join("s3").join(CUSTOMERS.data_prefix());
    let mut markers = 0;
    for file in files_below(&data)
        .iter()
        .filter(|p| p.extension().unwrap() == "parquet")
    {
        for batch in read(&data.join(file)).1 {
            let deleted = batch.column_by_name("is_deleted").unwrap().as_boolean();
            let ages = batch
                .column_by_name("age")
                .unwrap()
                .as_primitive::<Int64Type>();
            for row in 0..batch.num_rows() {
                assert_eq!(ages.is_null(row), deleted.value(row));
                markers += u32::from(deleted.value(row));
            }
        }
    }
    assert!(markers > 0);
}

#[test]
fn two_makings_are_the_same_to_the_byte() {
    let ((_a, a), (_b, b)) = (make(TINY), make(TINY));
    assert_eq!(a.facts, b.facts);
    let files = files_below(&a.dir);
    assert_eq!(files, files_below(&b.dir));
    for file in files {
        assert_eq!(
            fs::read(a.dir.join(&file)).unwrap(),
            fs::read(b.dir.join(&file)).unwrap()
        );
    }
}

#[test]
fn a_complete_warehouse_is_kept_and_anything_else_is_left_alone() {
    let (home, warehouse) = make(TINY);
    let mut never = |_| -> ControlFlow<()> { panic!("made again") };
    let again = Warehouse::open_or_make(&warehouse.dir, TINY, &mut never).unwrap();
    assert!(!again.made && again.facts == warehouse.facts);

    let other = Scale { days: 2, ..TINY };
    let error = Warehouse::open_or_make(&warehouse.dir, other, &mut never).unwrap_err();
    assert!(error.message.contains("another version"), "{error}");

    let photos = home.path().join("photos");
    fs::create_dir(&photos).unwrap();
    fs::write(photos.join("cat.jpg"), b"cat").unwrap();
    let error = Warehouse::open_or_make(&photos, TINY, &mut never).unwrap_err();
    assert!(error.message.contains("not empty"), "{error}");
    assert_eq!(fs::read(photos.join("cat.jpg")).unwrap(), b"cat");
}

#[test]
fn breaking_off_leaves_nothing_behind() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("warehouse");
    let mut stop = |percent| {
        if percent < 30 {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    };
    let error = Warehouse::open_or_make(&dir, TINY, &mut stop).unwrap_err();
    assert_eq!(error.kind, featureflight_catalog::Kind::Cancelled);
    assert_eq!(files_below(home.path()), Vec::<PathBuf>::new());
    assert!(!dir.exists());
}
