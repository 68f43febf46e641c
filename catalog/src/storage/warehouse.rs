//! A directory that stands in for every bucket: `s3://ANY-BUCKET/KEY` is read at `DIR/s3/KEY`.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;

use super::{Location, S3Url, Storage};
use crate::error::{Error, Result};

/// The object storage of a warehouse directory.
#[derive(Debug)]
pub struct WarehouseStorage {
    root: PathBuf,
    store: Arc<LocalFileSystem>,
}

impl WarehouseStorage {
    /// `dir` is the warehouse, the folder that holds `s3/`.
    ///
    /// # Errors
    /// `FailedPrecondition` when `dir/s3` is not a folder that can be read.
    pub fn open(dir: &FilePath) -> Result<Self> {
        let root = dir.join("s3");
        if !root.is_dir() {
            return Err(Error::precondition(format!(
                "'{}' is not a warehouse: it has no folder 's3' with the bucket's objects",
                dir.display()
            )));
        }
        let store = LocalFileSystem::new_with_prefix(&root).map_err(|error| {
            Error::precondition(format!(
                "folder '{}' cannot be read: {error}",
                root.display()
            ))
            .with_source(error)
        })?;
        Ok(Self {
            root,
            store: Arc::new(store),
        })
    }
}

impl Storage for WarehouseStorage {
    fn locate(&self, url: &str) -> Result<Location> {
        let s3 = S3Url::parse(url)?;
        let store = Arc::clone(&self.store) as Arc<dyn ObjectStore>;
        Ok(Location {
            store,
            url: s3.to_string(),
            prefix: s3.key,
            rewritten: true,
        })
    }

    fn remove(&self, location: &Location) -> Result<()> {
        if location.prefix.as_ref().is_empty() {
            return Err(Error::precondition(format!(
                "{} is the whole of a bucket, which is not removed",
                location.url
            )));
        }
        let folder = self.root.join(location.prefix.as_ref());
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                let folder = folder.display();
                return Err(Error::unavailable(format!(
                    "folder '{folder}' cannot be removed: {error}"
                )));
            }
            _ => {}
        }
        // The folder of the group above it, if that holds nothing else.
        if let Some(above) = folder.parent().filter(|above| *above != self.root) {
            std::fs::remove_dir(above).ok();
        }
        Ok(())
    }

    /// Buckets are dropped from paths, so locations of two buckets must not meet on one path.
    fn check(&self, locations: &[Location]) -> Result<()> {
        let mut taken: HashMap<&str, (String, &str)> = HashMap::new();
        for location in locations {
            let bucket = S3Url::parse(&location.url)?.bucket;
            let prefix = location.prefix.as_ref();
            let (owner, first) = taken
                .entry(prefix)
                .or_insert_with(|| (bucket.clone(), &location.url));
            if *owner != bucket {
                return Err(collision(first, &location.url));
            }
        }
        for (prefix, (bucket, url)) in &taken {
            let above = prefix.match_indices('/').map(|(end, _)| &prefix[..end]);
            let root = if prefix.is_empty() { None } else { Some("") };
            for folder in above.chain(root) {
                if let Some((owner, outer)) = taken.get(folder)
                    && owner != bucket
                {
                    return Err(collision(outer, url));
                }
            }
        }
        Ok(())
    }
}

fn collision(one: &str, other: &str) -> Error {
    Error::precondition(format!(
        "locations '{one}' and '{other}' fall on one path of the warehouse, which does not keep \
         buckets apart: give one of them another key"
    ))
}
