//! Whether a join reads its files once or twice.
//!
//! Two passes read keys and times first and then the features of the winners alone; one pass reads
//! both together and keeps the features of every version that enters a slot. The first reads less
//! where winners are few among many pages, the second asks the store half as often and opens each
//! file once.

use std::fmt;

use datafusion::common::stats::Precision;
use featureflight_catalog::listing::FileList;
use featureflight_catalog::table::FeatureTable;

/// What another request costs, in bytes that could have been read instead: some 20 ms of latency,
/// shared by as many requests as are in flight.
const REQUEST: f64 = 512.0 * 1024.0;

/// Bytes of a column that writers put into one page, about; a page is read whole.
const PAGE: f64 = 256.0 * 1024.0;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passes {
    One,
    Two,
}

impl fmt::Display for Passes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::One => "1",
            Self::Two => "2",
        })
    }
}

impl Passes {
    /// What costs less for `features` columns of these files, taken to be alike, and winners
    /// spread evenly over them; two passes where the number of spine rows is not known.
    #[allow(clippy::cast_precision_loss, reason = "an estimate")]
    pub(crate) fn choose(
        files: &FileList,
        table: &FeatureTable,
        features: usize,
        spine_rows: Precision<usize>,
    ) -> Self {
        let (count, Some(rows)) = (files.files.len(), spine_rows.get_value()) else {
            return Self::Two;
        };
        if count == 0 || features == 0 {
            return Self::Two;
        }
        let bytes: u64 = files.files.iter().map(|file| file.meta.size).sum();
        let columns = table.group.feature_definitions.len()
            + featureflight_catalog::model::SYSTEM_COLUMNS.len();
        let column = bytes as f64 / count as f64 / columns as f64;
        let wanted = column * features.min(columns) as f64;
        let winners = *rows as f64 / count as f64;
        let pages = (column / PAGE).max(1.0);
        let pages_hit = 1.0 - (-winners / pages).exp();
        let files_hit = 1.0 - (-winners).exp();
        if wanted <= pages_hit * wanted + files_hit * REQUEST {
            Self::One
        } else {
            Self::Two
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use featureflight_catalog::listing::DataFile;
    use featureflight_catalog::model::FeatureType;
    use featureflight_catalog::table::EventTimeForm;
    use object_store::memory::InMemory;
    use object_store::{ObjectMeta, path::Path};

    use super::*;
    use crate::testing::table;

    fn files(count: usize, size: u64) -> FileList {
        let file = |number| DataFile {
            unlanded: None,
            meta: ObjectMeta {
                location: Path::from(format!("{number}.parquet")),
                last_modified: SystemTime::UNIX_EPOCH.into(),
                size,
                e_tag: None,
                version: None,
            },
            hour: None,
        };
        FileList {
            files: (0..count).map(|number| Arc::new(file(number))).collect(),
            listed_at: SystemTime::UNIX_EPOCH,
            listed: count,
            pruned: 0,
            replaced: Arc::default(),
        }
    }

    #[test]
    fn small_files_and_dense_winners_take_one_pass() {
        let store = Arc::new(InMemory::new());
        let table = table(&store, FeatureType::String, EventTimeForm::Text);
        let choose = |count, size, features, rows| {
            Passes::choose(&files(count, size), &table, features, rows)
        };
        let (small, hour, large) = (60_000, 1_700_000, 256_000_000);
        let some = Precision::Inexact;
        assert_eq!(choose(14_400, small, 3, some(1_000_000)), Passes::One);
        assert_eq!(choose(720, hour, 3, some(1_000_000)), Passes::One);
        assert_eq!(choose(10, large, 3, some(10_000_000)), Passes::One);
        // Few winners: most pages, or most files, hold none.
        assert_eq!(choose(10, large, 3, some(100)), Passes::Two);
        assert_eq!(choose(720, hour, 3, some(10)), Passes::Two);
        // Nothing to save, or nothing to go by.
        assert_eq!(choose(720, hour, 0, some(1_000_000)), Passes::Two);
        assert_eq!(choose(720, hour, 3, Precision::Absent), Passes::Two);
        assert_eq!(choose(0, 0, 3, some(1_000_000)), Passes::Two);
    }
}
