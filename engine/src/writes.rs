//! Statements and uploads that would write to feature groups. There are none yet: everything that
//! asks for one ends here, however it was sent.

use featureflight_catalog::{Error, Result};

/// Refuses a write to `target`.
///
/// # Errors
/// Always `InvalidArgument`.
pub(crate) fn begin<T>(target: &str) -> Result<T> {
    Err(Error::invalid(format!(
        "{target} cannot be written: this server only reads feature groups; write them with \
         SageMaker's PutRecord, and upload data of your own as a temporary table"
    )))
}
