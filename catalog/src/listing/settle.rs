//! Makes a list of files whole where files were replaced while it was taken, see
//! [`replaced`](crate::replaced).

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::time::Duration;

use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};

use crate::error::{Error, Result};
use crate::replaced::{Replaced, Replacement};
use crate::scan::fetch::describe;
use crate::storage::Location;

/// A replacement takes a few renames once it has begun.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// How many replacements there were when a list was begun.
pub(super) async fn begin(location: &Location) -> Result<u64> {
    if !location.rewritten {
        return Ok(0);
    }
    Ok(Replaced::read(location).await?.count)
}

/// `objects`, listed since [`begin`] said `before`, without those that were replaced meanwhile and
/// with those that replaced them; and the places of all that were replaced of late.
pub(super) async fn settle(
    location: &Location,
    before: u64,
    objects: Vec<ObjectMeta>,
) -> Result<(Vec<ObjectMeta>, HashSet<String>)> {
    if !location.rewritten {
        return Ok((objects, HashSet::new()));
    }
    let again = || {
        let url = &location.url;
        Error::unavailable(format!(
            "files under {url} were replaced while they were listed; try again"
        ))
    };
    let mut now = settled(location).await?;
    loop {
        let missed = now.since(before).ok_or_else(again)?;
        if missed.is_empty() {
            return Ok((objects, replaced_places(location, &now)));
        }
        if let Some(objects) = put_right(location, missed, &objects).await? {
            return Ok((objects, replaced_places(location, &now)));
        }
        // What replaced a file was replaced itself.
        let known = std::mem::replace(&mut now, settled(location).await?);
        if known.count == now.count {
            return Err(again());
        }
    }
}

/// The mark once nothing is half replaced.
async fn settled(location: &Location) -> Result<Replaced> {
    let looked = tokio::time::Instant::now();
    loop {
        let mark = Replaced::read(location).await?;
        if mark.under_way.is_none() {
            return Ok(mark);
        }
        if looked.elapsed() >= PATIENCE {
            let url = &location.url;
            return Err(Error::unavailable(format!(
                "files under {url} are half replaced: the server that owns the warehouse ends that \
                 when it starts; try again later"
            )));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn replaced_places(location: &Location, mark: &Replaced) -> HashSet<String> {
    let places = mark.recent.iter().flat_map(|one| places(location, one));
    places.map(|path| path.as_ref().to_owned()).collect()
}

fn places<'a>(
    location: &'a Location,
    one: &'a Replacement,
) -> impl Iterator<Item = Path> + use<'a> {
    let names = one.files.iter();
    names.map(|name| one.place(&location.prefix, name))
}

/// A list that was taken while files moved may have any of them. `None` when one that it must have
/// is not there.
async fn put_right(
    location: &Location,
    missed: &[Replacement],
    objects: &[ObjectMeta],
) -> Result<Option<Vec<ObjectMeta>>> {
    let gone: HashSet<Path> = missed
        .iter()
        .flat_map(|one| places(location, one))
        .collect();
    let kept = objects
        .iter()
        .filter(|object| !gone.contains(&object.location));
    let mut kept: Vec<ObjectMeta> = kept.cloned().collect();
    let new = missed.iter().filter_map(|one| {
        let path = one.place(&location.prefix, one.file.as_ref()?);
        let is_listed = || objects.iter().any(|object| object.location == path);
        (!gone.contains(&path) && !is_listed()).then_some(path)
    });
    for path in new {
        match location.store.head(&path).await {
            Ok(object) => kept.push(object),
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => {
                let (url, why) = (&location.url, describe(&error));
                return Err(Error::unavailable(format!(
                    "the files under {url} cannot be listed: {why}; try again later"
                ))
                .with_source(error));
            }
        }
    }
    Ok(Some(kept))
}
