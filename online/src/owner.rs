//! Who may write to a warehouse: a marker in it names the one outbox whose server does. A warehouse
//! without a marker belongs to somebody else, SageMaker for one, and is only read.
//!
//! ```text
//! WAREHOUSE/owner.json   {"owner": "..."}
//! OUTBOX/owner           the same text
//! ```

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use featureflight_catalog::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::disk::put;

const MARKER: &str = "owner.json";
const OWNER: &str = "owner";

#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    owner: String,
}

/// Whether somebody has claimed the warehouse.
pub fn is_claimed(warehouse: &Path) -> bool {
    warehouse.join(MARKER).exists()
}

/// Makes sure that the warehouse belongs to the outbox in `outbox`, which this process has open,
/// and claims it when it belongs to nobody.
///
/// # Errors
/// `FailedPrecondition` when it belongs to another outbox, or the marker cannot be read or made.
pub fn claim(warehouse: &Path, outbox: &Path) -> Result<()> {
    let failed = |path: &Path, error: &std::io::Error| {
        let path = path.display();
        Error::precondition(format!(
            "the marker of the warehouse's owner at '{path}' cannot be read or made: {error}"
        ))
    };
    let (marker, own) = (warehouse.join(MARKER), outbox.join(OWNER));
    let mine = match fs::read_to_string(&own) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(failed(&own, &error)),
    };
    match fs::read(&marker) {
        Ok(bytes) => {
            let found = serde_json::from_slice::<Marker>(&bytes);
            let found = found.map_err(|error| failed(&marker, &error.into()))?;
            if Some(found.owner) == mine {
                return Ok(());
            }
            Err(Error::precondition(format!(
                "the warehouse '{}' belongs to another outbox than '{}': set outbox.directory to \
                 that one, set outbox.enabled = false to only read, or remove '{}' if the other \
                 outbox is gone for good with all it held",
                warehouse.display(),
                outbox.display(),
                marker.display()
            )))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let owner = mine.unwrap_or_else(|| format!("{:032x}", rand::random::<u128>()));
            put(outbox, OWNER, owner.as_bytes()).map_err(|error| failed(&own, &error))?;
            let json = serde_json::to_vec(&Marker { owner })
                .map_err(|error| Error::internal("a marker has no JSON").with_source(error))?;
            put(warehouse, MARKER, &json).map_err(|error| failed(&marker, &error))
        }
        Err(error) => Err(failed(&marker, &error)),
    }
}

#[cfg(test)]
mod tests {
    use featureflight_catalog::Kind;

    use super::*;

    #[test]
    fn a_warehouse_has_one_outbox() {
        let warehouse = tempfile::tempdir().unwrap();
        let [one, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        assert!(!is_claimed(warehouse.path()));
        claim(warehouse.path(), one.path()).unwrap();
        assert!(is_claimed(warehouse.path()));
        claim(warehouse.path(), one.path()).unwrap();
        let error = claim(warehouse.path(), other.path()).unwrap_err();
        assert_eq!(error.kind, Kind::FailedPrecondition);
        claim(warehouse.path(), one.path()).unwrap();
    }

    #[test]
    fn a_claim_cut_short_is_taken_up_again() {
        let warehouse = tempfile::tempdir().unwrap();
        let outbox = tempfile::tempdir().unwrap();
        fs::write(outbox.path().join(OWNER), "before the crash").unwrap();
        claim(warehouse.path(), outbox.path()).unwrap();
        let owner = fs::read_to_string(outbox.path().join(OWNER)).unwrap();
        assert_eq!(owner, "before the crash");
        claim(warehouse.path(), outbox.path()).unwrap();
    }
}
