//! Which functions there are, and that each was looked at.

use std::collections::BTreeSet;

use datafusion::execution::SessionState;

use super::GUARDED;
use crate::EngineOptions;

/// What is not guarded: the result is at most a small factor larger than the arguments, and the
/// work follows their size.
const SMALL: &str = "
    abs acos acosh array_add array_any_value array_avg array_compact array_dims array_distance
    array_distinct array_element array_except array_has array_intersect array_length array_max
    array_min array_ndims array_normalize array_pop_back array_pop_front array_position
    array_product array_remove array_remove_all array_remove_n array_reverse array_scale
    array_slice array_sort array_subtract array_sum arrow_field arrow_metadata arrow_typeof
    ascii asin asinh atan atan2 atanh bit_length cardinality cast_to_type cbrt ceil
    character_length chr coalesce contains cos cosh cosine_distance cot current_date
    current_time date_bin date_part date_trunc decode degrees digest empty ends_with exp
    factorial file_row_index find_in_set flatten floor from_unixtime gcd get_field greatest
    initcap inner_product input_file_name isnan iszero lcm least left ln log log10 log2 lower
    make_date make_time map map_entries map_extract map_keys map_values md5 nanvl now nullif nvl
    nvl2 octet_length pi power radians random regexp_like reverse right round sha224 sha256
    sha384 sha512 signum sin sinh split_part sqrt starts_with substr substr_index tan tanh
    to_date to_hex to_local_time to_time to_timestamp to_timestamp_micros to_timestamp_millis
    to_timestamp_nanos to_timestamp_seconds to_unixtime translate trunc try_cast_to_type
    union_extract union_tag upper uuid version with_metadata";

fn functions(state: &SessionState) -> BTreeSet<String> {
    let functions = state.scalar_functions().values();
    functions
        .map(|function| function.name().to_owned())
        .collect()
}

#[test]
fn every_function_is_guarded_or_known_to_stay_small() {
    let spill = tempfile::tempdir().unwrap();
    let state = crate::runtime::base_state(&EngineOptions::default(), spill.path()).unwrap();
    let guarded: BTreeSet<_> = GUARDED.iter().map(|(name, _)| (*name).to_owned()).collect();
    let small: BTreeSet<_> = SMALL.split_whitespace().map(str::to_owned).collect();
    let casts = ["arrow_cast", "arrow_try_cast"].map(str::to_owned);
    let known: BTreeSet<_> = guarded.union(&small).cloned().chain(casts).collect();
    let unknown: Vec<_> = functions(&state).difference(&known).cloned().collect();
    assert!(
        unknown.is_empty(),
        "guard these or say that they stay small: {}",
        unknown.join(" ")
    );
}

/// Aggregates whose value is a number, or that of one row.
const ONE_VALUE: &str = "
    any_value approx_distinct approx_median approx_percentile_cont
    approx_percentile_cont_with_weight avg bit_and bit_or bit_xor bool_and bool_or corr count
    covar_pop covar_samp first_value grouping last_value max median min nth_value
    percentile_cont regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope regr_sxx
    regr_sxy regr_syy stddev stddev_pop sum var var_pop";

#[test]
fn every_aggregate_has_one_value_or_bounded_frames() {
    let spill = tempfile::tempdir().unwrap();
    let state = crate::runtime::base_state(&EngineOptions::default(), spill.path()).unwrap();
    let growing = super::frames::GROWING;
    let known: BTreeSet<_> = ONE_VALUE.split_whitespace().chain(growing).collect();
    let aggregates = state.aggregate_functions().values();
    let unknown: BTreeSet<_> = aggregates
        .map(|function| function.name())
        .filter(|name| !known.contains(name))
        .collect();
    assert!(
        unknown.is_empty(),
        "bound their frames or say that they have one value: {unknown:?}"
    );
}
