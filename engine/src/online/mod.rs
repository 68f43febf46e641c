//! Online stores in SQL: `online('g')`, the records as they are ([`records`]), and
//! `online_skew('g')`, how they differ from the group's state ([`skew`]).
//!
//! Both look when the statement is pinned or first run, and give the same rows to the same ticket
//! after that.

mod exec;
mod found;
mod probe;
mod records;
mod skew;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::scalar::ScalarValue;
use featureflight_catalog::model::FeatureGroup;
use featureflight_catalog::{Error, Result};
use featureflight_online::gateway::Gateway;
use featureflight_online::group::WriteGroup;
use featureflight_online::record::fractional;
use featureflight_online::store::OnlineStore;
use featureflight_udf::{OnlineRelations, Skew};

pub(crate) use found::MAX_KEYS;
pub(crate) use probe::ProbeOnline;

/// See the module.
#[derive(Debug)]
pub(crate) struct OnlineStores(pub(crate) Arc<Gateway>);

/// A feature group in its online store.
#[derive(Debug, Clone)]
struct Online {
    group: Arc<WriteGroup>,
    store: Arc<dyn OnlineStore>,
}

impl Online {
    /// The columns of the group's state.
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.group.shape.state_schema)
    }

    /// The name of the record identifier's column.
    fn identifier(&self) -> &str {
        let shape = &self.group.shape;
        shape.state_schema.field(shape.record_identifier).name()
    }
}

/// A record identifier as the text that online stores keep; `None` for a value that is none.
fn identifier_text(value: &ScalarValue) -> Option<String> {
    match value {
        ScalarValue::Int64(Some(value)) => Some(value.to_string()),
        ScalarValue::Float64(Some(value)) => Some(fractional(*value)),
        other => other.try_as_str().flatten().map(str::to_owned),
    }
}

impl OnlineStores {
    fn of(&self, group: &Arc<FeatureGroup>) -> Result<Online> {
        let group = Arc::new(WriteGroup::new(Arc::clone(group))?);
        let store = Arc::clone(self.0.online(&group)?);
        Ok(Online { group, store })
    }
}

impl OnlineRelations for OnlineStores {
    fn records(&self, group: &Arc<FeatureGroup>) -> Result<Arc<dyn TableProvider>> {
        Ok(Arc::new(records::Provider::new(self.of(group)?)))
    }

    fn skew(&self, skew: Skew) -> Result<Arc<dyn TableProvider>> {
        if skew.sample > skew::MAX_SAMPLE {
            return Err(Error::invalid(format!(
                "online_skew: sample is {} at most, not {}",
                skew::MAX_SAMPLE,
                skew.sample
            )));
        }
        let online = self.of(&skew.table.group)?;
        Ok(Arc::new(skew::Provider::new(online, skew)))
    }
}
