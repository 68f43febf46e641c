//! Which offline files rows were about to go into: noted before a file is there, forgotten after its
//! rows are settled, so that a crash in between is told from one before.

use featureflight_catalog::{Error, Result};
use redb::{ReadableTable, TableDefinition};

use super::Outbox;
use super::stage::Position;

/// The file to its rows as JSON.
pub(super) const LANDINGS: TableDefinition<&str, &[u8]> = TableDefinition::new("landings");

/// An offline file and the rows it is to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Landing {
    pub file: String,
    pub rows: Vec<(Position, Vec<usize>)>,
}

impl Outbox {
    /// Notes files that are about to be written, all or none. Blocks the thread.
    ///
    /// # Errors
    /// `Unavailable` when the index cannot be written.
    pub fn note_landings(&self, landings: &[Landing]) -> Result<()> {
        let encoded = landings.iter().map(|landing| {
            let rows = serde_json::to_vec(&landing.rows)
                .map_err(|error| Error::internal("a landing has no JSON").with_source(error))?;
            Ok((landing.file.as_str(), rows))
        });
        let encoded = encoded.collect::<Result<Vec<_>>>()?;
        self.core.index.write(|transaction| {
            let mut table = transaction.open_table(LANDINGS)?;
            for (file, rows) in &encoded {
                table.insert(*file, rows.as_slice())?;
            }
            Ok(())
        })
    }

    /// Forgets files whose rows are settled, or that did not come to be. Blocks the thread.
    ///
    /// # Errors
    /// As [`Self::note_landings`].
    pub fn forget_landings(&self, landings: &[Landing]) -> Result<()> {
        self.core.index.write(|transaction| {
            let mut table = transaction.open_table(LANDINGS)?;
            for landing in landings {
                table.remove(landing.file.as_str())?;
            }
            Ok(())
        })
    }

    /// What is noted. Blocks the thread.
    ///
    /// # Errors
    /// `Unavailable` when the index cannot be read, `DataLoss` for a note that is none.
    pub fn landings(&self) -> Result<Vec<Landing>> {
        let noted = self.core.index.write(|transaction| {
            let table = transaction.open_table(LANDINGS)?;
            let entries = table.iter()?.map(|entry| {
                let (file, rows) = entry?;
                Ok((file.value().to_owned(), rows.value().to_vec()))
            });
            entries.collect::<Result<Vec<_>, redb::Error>>()
        })?;
        let decode = |(file, rows): (String, Vec<u8>)| {
            let rows = serde_json::from_slice(&rows).map_err(|error| {
                let what = format!("the outbox's note on '{file}' cannot be read");
                Error::data_loss(what).with_source(error)
            })?;
            Ok(Landing { file, rows })
        };
        noted.into_iter().map(decode).collect()
    }
}
