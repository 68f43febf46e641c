use arrow::array::{
    Array, ArrayRef, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float32Array,
    Float64Array, Int32Array, Int64Array, NullArray, StringArray, StringViewArray,
    TimestampNanosecondArray, UInt64Array,
};
use arrow::datatypes::Int32Type;
use featureflight_catalog::Kind;
use serde_json::json;

use super::*;

fn group(event_time: &str) -> WriteGroup {
    let group = serde_json::from_value(json!({
        "FeatureGroupName": "orders",
        "RecordIdentifierFeatureName": "id",
        "EventTimeFeatureName": "ts",
        "FeatureDefinitions": [
            {"FeatureName": "id", "FeatureType": "String"},
            {"FeatureName": "ts", "FeatureType": event_time},
            {"FeatureName": "items", "FeatureType": "Integral"},
            {"FeatureName": "total", "FeatureType": "Fractional"},
            {"FeatureName": "Note", "FeatureType": "String"},
        ],
    }));
    WriteGroup::new(Arc::new(group.expect("group"))).expect("group")
}

fn now() -> Instant {
    Instant::parse("2026-06-01T00:00:00Z").expect("instant")
}

fn array(values: impl Array + 'static) -> ArrayRef {
    Arc::new(values)
}

fn good() -> Vec<(&'static str, ArrayRef)> {
    vec![
        ("id", array(StringArray::from(vec!["a", "b"]))),
        (
            "ts",
            array(StringArray::from(vec![
                "2026-01-01T00:00:00Z",
                "2026-01-01 01:00:00+01:00",
            ])),
        ),
        ("items", array(Int32Array::from(vec![Some(1), None]))),
        ("total", array(Float32Array::from(vec![1.5, 2.0]))),
        ("Note", array(StringArray::from(vec![Some(""), None]))),
    ]
}

/// The good two rows with one column replaced.
fn with(name: &'static str, values: impl Array + 'static) -> RecordBatch {
    let mut columns = good();
    for column in &mut columns {
        if column.0 == name {
            column.1 = array(values);
            return RecordBatch::try_from_iter(columns).expect("batch");
        }
    }
    unreachable!("{name} is a column");
}

fn check_in(
    group: &WriteGroup,
    batch: &RecordBatch,
    options: ValidateOptions,
) -> Result<(Block, Refusals)> {
    let mut validator = Validator::new(group, Operation::Put, batch.schema_ref(), options)?;
    let block = validator.check(batch, now())?;
    Ok((block, validator.into_refusals()))
}

fn check(batch: &RecordBatch) -> (Block, Refusals) {
    check_in(&group("String"), batch, ValidateOptions::default()).expect("checked")
}

/// The only refusal, as text.
fn refusal(batch: &RecordBatch) -> String {
    let (block, refusals) = check(batch);
    assert_eq!((block.len(), refusals.rows), (1, 1), "{refusals}");
    refusals.listed[0].to_string()
}

fn refused_request(batch: &RecordBatch) -> String {
    let error =
        check_in(&group("String"), batch, ValidateOptions::default()).expect_err("a wrong request");
    assert_eq!(error.kind, Kind::InvalidArgument);
    error.message
}

fn texts(block: &Block, column: usize) -> Vec<Option<String>> {
    (0..block.len())
        .map(|row| block.text(column, row))
        .collect()
}

fn some(values: &[&str]) -> Vec<Option<String>> {
    values.iter().map(|v| Some((*v).to_owned())).collect()
}

#[test]
fn good_rows_become_records_in_the_definitions_forms() {
    let (block, refusals) = check(&RecordBatch::try_from_iter(good()).expect("batch"));
    assert!(refusals.is_empty(), "{refusals}");
    assert_eq!(texts(&block, 0), some(&["a", "b"]));
    assert_eq!(
        texts(&block, 1),
        some(&["2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"])
    );
    assert_eq!(texts(&block, 2), [Some("1".to_owned()), None]);
    assert_eq!(texts(&block, 3), some(&["1.5", "2.0"]));
    assert_eq!(texts(&block, 4), [Some(String::new()), None]);
    assert_eq!(block.instants()[0], block.instants()[1]);
}

#[test]
fn columns_may_come_in_any_order_and_case() {
    let mut columns = good();
    columns.reverse();
    columns[0].0 = "note";
    let (block, refusals) = check(&RecordBatch::try_from_iter(columns).expect("batch"));
    assert!(refusals.is_empty());
    assert_eq!(texts(&block, 0), some(&["a", "b"]));
    assert_eq!(block.rows.schema().field(4).name(), "Note");
}

#[test]
fn requests_whose_columns_cannot_fit_are_errors() {
    let mut missing = good();
    missing.remove(2);
    let batch = RecordBatch::try_from_iter(missing.clone()).expect("batch");
    let message = refused_request(&batch);
    assert!(
        message.contains("'items'") && message.contains("featureflight.partial"),
        "{message}"
    );
    let options = ValidateOptions {
        partial: Partial::Null,
        ..ValidateOptions::default()
    };
    let (block, refusals) = check_in(&group("String"), &batch, options).expect("nulls");
    assert!(refusals.is_empty());
    assert_eq!(texts(&block, 2), [None, None]);

    for (gone, role) in [(0, "record identifier 'id'"), (1, "event time 'ts'")] {
        let mut columns = good();
        columns.remove(gone);
        let batch = RecordBatch::try_from_iter(columns).expect("batch");
        let error = check_in(&group("String"), &batch, options).expect_err("a key is missing");
        assert!(error.message.contains(role), "{}", error.message);
    }
    for (name, part) in [
        (
            "nonsense",
            "takes no column 'nonsense': it has id, ts, items, total, Note",
        ),
        ("Write_Time", "the store sets it"),
        ("ID", "given twice"),
    ] {
        let mut columns = good();
        columns.push((name, array(Int64Array::from(vec![1, 2]))));
        let message = refused_request(&RecordBatch::try_from_iter(columns).expect("batch"));
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn types_that_no_feature_takes_are_errors() {
    let bools = || BooleanArray::from(vec![true, false]);
    for name in ["id", "ts", "items", "total", "Note"] {
        let message = refused_request(&with(name, bools()));
        assert!(
            message.contains("is Boolean") && message.contains("cast it"),
            "{message}"
        );
    }
    let numbers = with("Note", Int64Array::from(vec![1, 2]));
    assert!(refused_request(&numbers).contains("takes text"));
    let text = with("items", StringArray::from(vec!["1", "2"]));
    assert!(refused_request(&text).contains("is Integral"));
}

#[test]
fn other_types_of_the_same_kind_fit() {
    let dictionary: DictionaryArray<Int32Type> = vec!["x", "y"].into_iter().collect();
    assert_eq!(
        texts(&check(&with("id", dictionary)).0, 0),
        some(&["x", "y"])
    );
    let views = StringViewArray::from(vec!["x", "y"]);
    assert_eq!(texts(&check(&with("id", views)).0, 0), some(&["x", "y"]));
    let nulls = check(&with("items", NullArray::new(2)));
    assert_eq!(texts(&nulls.0, 2), [None, None]);
    let floats = with("items", Float64Array::from(vec![Some(3.0), None]));
    assert_eq!(texts(&check(&floats).0, 2), [Some("3".to_owned()), None]);
    let decimals = Decimal128Array::from(vec![150, 25]).with_precision_and_scale(10, 2);
    let decimals = with("total", decimals.expect("decimals"));
    assert_eq!(texts(&check(&decimals).0, 3), some(&["1.5", "0.25"]));
}

#[test]
fn numbers_that_do_not_fit_are_refused_by_row() {
    let unsigned = UInt64Array::from(vec![1, u64::MAX]);
    assert_eq!(
        refusal(&with("items", unsigned)),
        "row 1, column 'items': integer: it is beyond 64 bits with a sign"
    );
    for (value, found) in [
        (f64::NAN, "NaN"),
        (f64::INFINITY, "infinity"),
        (0.5, "fraction"),
        (9.3e18, "number"),
        (-9.3e18, "number"),
    ] {
        let message = refusal(&with("items", Float64Array::from(vec![1.0, value])));
        assert!(
            message.starts_with(&format!("row 1, column 'items': {found}:")),
            "{message}"
        );
    }
    for (value, found) in [(f64::NAN, "NaN"), (f64::NEG_INFINITY, "infinity")] {
        let message = refusal(&with("total", Float64Array::from(vec![1.0, value])));
        assert!(
            message.contains(found) && message.contains("send null"),
            "{message}"
        );
    }
    let inexact = Int64Array::from(vec![9_007_199_254_740_993, 1 << 53]);
    assert!(refusal(&with("total", inexact)).starts_with("row 0"));
    let largest = Int64Array::from(vec![i64::MAX, i64::MIN]);
    assert!(refusal(&with("total", largest)).starts_with("row 0"));
}

#[test]
fn identifiers_are_there_not_empty_and_not_too_long() {
    let long = "x".repeat(MAX_IDENTIFIER_BYTES + 1);
    for (value, part) in [
        (None, "null: the record identifier is missing"),
        (Some(""), "never empty"),
        (Some(long.as_str()), "text of 2049 bytes"),
    ] {
        let message = refusal(&with("id", StringArray::from(vec![Some("a"), value])));
        assert!(message.contains(part), "{message}");
    }
    let longest = StringArray::from(vec!["a", &long[1..]]);
    assert!(check(&with("id", longest)).1.is_empty());
}

#[test]
fn records_of_more_than_350_kb_are_refused() {
    let names = "idtsitemstotalNote".len();
    // Row 1 without its note: 'b', its event time, no items, '2.0'; a null's name is not sent.
    let rest = names - "items".len() + "b".len() + "2026-01-01T00:00:00Z".len() + "2.0".len();
    let room = MAX_RECORD_BYTES - rest;
    let note = |bytes: usize| StringArray::from(vec![String::new(), "n".repeat(bytes)]);
    assert!(check(&with("Note", note(room))).1.is_empty());
    let message = refusal(&with("Note", note(room + 1)));
    assert_eq!(
        message,
        "row 1: record of 358401 bytes: a record has at most 358400"
    );
}

#[test]
fn event_times_take_the_definitions_form() {
    let second = 1_767_225_600_i64; // 2026-01-01
    let nanos = TimestampNanosecondArray::from(vec![second * 1_000_000_000 + 1, 0]);
    let zoned = with("ts", nanos.with_timezone("+02:00"));
    assert_eq!(
        texts(&check(&zoned).0, 1),
        some(&["2026-01-01T00:00:00.000000001Z", "1970-01-01T00:00:00Z"])
    );
    let seconds = with("ts", Float64Array::from(vec![second as f64 + 0.25, -0.5]));
    assert_eq!(
        texts(&check(&seconds).0, 1),
        some(&["2026-01-01T00:00:00.250Z", "1969-12-31T23:59:59.500Z"])
    );
    let whole = with("ts", Int64Array::from(vec![second, 0]));
    assert_eq!(
        texts(&check(&whole).0, 1)[0].as_deref(),
        Some("2026-01-01T00:00:00Z")
    );
    let dates = with("ts", Date32Array::from(vec![0, 20_454]));
    assert_eq!(
        texts(&check(&dates).0, 1)[1].as_deref(),
        Some("2026-01-01T00:00:00Z")
    );

    let fractional = group("Fractional");
    let text = StringArray::from(vec![
        "2026-01-01T00:00:00.123456Z",
        "2026-01-01T00:00:00.123456789Z",
    ]);
    let (block, refusals) =
        check_in(&fractional, &with("ts", text), ValidateOptions::default()).expect("checked");
    assert_eq!(texts(&block, 1), some(&["1767225600.123456"]));
    assert!(
        refusals.listed[0].to_string().contains("too fine"),
        "{refusals}"
    );
}

#[test]
fn event_times_that_are_none_are_refused() {
    for (value, part) in [
        (None, "null: the event time is missing"),
        (Some("yesterday"), "not ISO-8601"),
        (Some("2026-02-30T00:00:00Z"), "not ISO-8601"),
    ] {
        let times = StringArray::from(vec![Some("2026-01-01T00:00:00Z"), value]);
        let message = refusal(&with("ts", times));
        assert!(message.contains(part), "{message}");
    }
    for value in [f64::NAN, 1e18, -1e12] {
        let message = refusal(&with("ts", Float64Array::from(vec![0.0, value])));
        assert!(message.contains("0000 to 9999"), "{message}");
    }
    let far = Int64Array::from(vec![0, i64::MAX]);
    assert!(refusal(&with("ts", far)).contains("0000 to 9999"));
}

#[test]
fn event_times_are_bounded_by_the_clock_where_asked() {
    let options = ValidateOptions {
        max_future: Some(Duration::from_secs(60)),
        ..ValidateOptions::default()
    };
    let times = StringArray::from(vec![
        "2026-06-01T00:01:00Z",
        "2026-06-01T00:01:00.000000001Z",
    ]);
    let (block, refusals) =
        check_in(&group("String"), &with("ts", times), options).expect("checked");
    assert_eq!((block.len(), refusals.rows), (1, 1));
    assert_eq!(refusals.listed[0].row, 1);
    assert_eq!(refusals.listed[0].found, "future");
}

#[test]
fn refusals_count_rows_and_list_a_bounded_number_in_their_order() {
    let rows = 250;
    let batch = RecordBatch::try_from_iter([
        ("id", array(StringArray::from(vec!["a"; rows]))),
        ("ts", array(StringArray::from(vec!["no"; rows]))),
        ("items", array(Float64Array::from(vec![0.5; rows]))),
        ("total", array(Float64Array::from(vec![f64::NAN; rows]))),
        ("Note", array(StringArray::from(vec![""; rows]))),
    ])
    .expect("batch");
    let group = group("String");
    let mut validator = Validator::new(
        &group,
        Operation::Put,
        batch.schema_ref(),
        ValidateOptions::default(),
    )
    .expect("columns");
    for _ in 0..2 {
        assert!(validator.check(&batch, now()).expect("checked").is_empty());
    }
    let refusals = validator.refusals();
    assert_eq!((refusals.rows, refusals.listed.len()), (500, MAX_LISTED));
    let rows: Vec<u64> = refusals.listed.iter().map(|r| r.row).collect();
    assert!(rows.is_sorted());
    assert_eq!(rows[..4], [0, 0, 0, 1]);
    let text = refusals.to_string();
    assert!(
        text.starts_with("500 rows refused\n  row 0, column 'ts'"),
        "{text}"
    );
    assert!(text.ends_with("and 466 more"), "{text}");
}

#[test]
fn deletes_name_identifier_and_event_time_alone() {
    let group = group("String");
    let batch = RecordBatch::try_from_iter(good()[..2].to_vec()).expect("batch");
    let mut validator = Validator::new(
        &group,
        Operation::HardDelete,
        batch.schema_ref(),
        ValidateOptions::default(),
    )
    .expect("columns");
    let block = validator.check(&batch, now()).expect("checked");
    assert_eq!((block.len(), block.operation), (2, Operation::HardDelete));
    let wide = RecordBatch::try_from_iter(good()).expect("batch");
    let error = Validator::new(
        &group,
        Operation::SoftDelete,
        wide.schema_ref(),
        ValidateOptions::default(),
    )
    .expect_err("too many columns");
    assert!(
        error.message.contains("a delete names id, ts"),
        "{}",
        error.message
    );
}

#[test]
fn groups_that_cannot_be_written_say_why() {
    let refused = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut json = json!({
            "FeatureGroupName": "g",
            "RecordIdentifierFeatureName": "id",
            "EventTimeFeatureName": "ts",
            "FeatureDefinitions": [
                {"FeatureName": "id", "FeatureType": "String"},
                {"FeatureName": "ts", "FeatureType": "String"},
            ],
        });
        change(&mut json);
        let group = serde_json::from_value(json).expect("JSON");
        let error = WriteGroup::new(Arc::new(group)).expect_err("refused");
        assert_eq!(error.kind, Kind::FailedPrecondition);
        error.message
    };
    let status = refused(&|json| json["FeatureGroupStatus"] = json!("Deleting"));
    assert!(status.contains("'Deleting'"), "{status}");
    let ttl = refused(&|json| {
        json["OnlineStoreConfig"] = json!({"TtlDuration": {"Unit": "Fortnights", "Value": 1}});
    });
    assert!(ttl.contains("TtlDuration"), "{ttl}");
    let many = refused(&|json| {
        let features = (0..2_501)
            .map(|at| json!({"FeatureName": format!("f{at}"), "FeatureType": "Integral"}));
        json["FeatureDefinitions"] = features.collect();
    });
    assert!(many.contains("2501 features"), "{many}");
    let reserved =
        refused(&|json| json["FeatureDefinitions"][0]["FeatureName"] = json!("is_deleted"));
    assert!(reserved.contains("reserves"), "{reserved}");
}
