//! A spine that does not fit into memory: rows and versions are dealt to partitions on disk by the
//! hash of the key, and joined as many partitions at once as fit. A partition that does not fit by
//! itself is joined in parts, each of which reads the partition's versions again.
//!
//! Groups with the same key are dealt together. What comes out of their join is the spine of the
//! next ones. Files are of the session's spill directory, count towards its quota and go with the
//! last of their readers. Rows leave in an order that depends on nothing but the input's.

mod deal;
pub(crate) mod versions;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_plan::metrics::SpillMetrics;
use featureflight_catalog::Instant;
use featureflight_catalog::scan::prune::Prune;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use self::deal::{Dealer, Disk, PARTITIONS, Seen, SpilledRows, noted};
use self::versions::SpilledVersions;
use crate::point_in_time::features::distinct;
use crate::point_in_time::group::{Group, GroupMetrics};
use crate::point_in_time::rows::Joiner;
use crate::point_in_time::spine::{Piece, Spine, SpineReader};
use crate::ranking::rank;

/// Joins `pieces` of a spine with columns of the types of `spine`; `sources` is how many partitions
/// they come from.
pub(crate) fn join(
    joiner: &Joiner,
    spine: &SchemaRef,
    sources: usize,
    pieces: BoxStream<'static, Result<Piece>>,
) -> BoxStream<'static, Result<RecordBatch>> {
    let width = spine.fields().len();
    // The columns of the output in the order in which they are joined.
    let mut joined: Vec<usize> = (0..width).collect();
    let (mut schema, mut sources, mut pieces) = (Arc::clone(spine), sources, pieces);
    for set in by_key(&joiner.groups) {
        let mut fields: Vec<_> = schema.fields().to_vec();
        for at in &set {
            let first = width + features(&joiner.groups[..*at]);
            let columns = first..first + joiner.groups[*at].features.len();
            fields.extend_from_slice(&joiner.schema.fields()[columns.clone()]);
            joined.extend(columns);
        }
        let groups = set.into_iter().map(|at| joiner.groups[at].clone());
        let wider = Arc::new(Schema::new(fields));
        let joiner = joiner.of(groups.collect(), Arc::clone(&wider));
        pieces = stage(joiner, schema, sources, pieces)
            .map_ok(|batch| (0, batch))
            .boxed();
        (schema, sources) = (wider, 1);
    }
    let mut order = vec![0; joined.len()];
    for (at, column) in joined.into_iter().enumerate() {
        order[column] = at;
    }
    let schema = Arc::clone(&joiner.schema);
    pieces
        .map(move |piece| {
            let columns = piece?.1.project(&order)?.columns().to_vec();
            Ok(RecordBatch::try_new(Arc::clone(&schema), columns)?)
        })
        .boxed()
}

/// How many columns the groups add.
fn features(groups: &[Group]) -> usize {
    groups.iter().map(|group| group.features.len()).sum()
}

/// The positions of the groups, those with the same key together.
fn by_key(groups: &[Group]) -> Vec<Vec<usize>> {
    let mut sets: Vec<Vec<usize>> = Vec::new();
    for (at, group) in groups.iter().enumerate() {
        match sets.iter_mut().find(|set| groups[set[0]].shares_key(group)) {
            Some(set) => set.push(at),
            None => sets.push(vec![at]),
        }
    }
    sets
}

/// The join with groups that have the same key.
fn stage(
    joiner: Joiner,
    spine: SchemaRef,
    sources: usize,
    pieces: BoxStream<'static, Result<Piece>>,
) -> BoxStream<'static, Result<RecordBatch>> {
    stream::once(async move {
        let dealt = DealtSpine::new(&joiner, spine, sources, pieces).await?;
        let mut histories = Vec::with_capacity(joiner.groups.len());
        for (group, times) in joiner.groups.iter().zip(&dealt.times) {
            histories.push(deal_history(group, &joiner, *times, &dealt.seen).await?);
        }
        let parts = Parts {
            reader: joiner.read(dealt.read()),
            ahead: Vec::new(),
            histories,
            joiner,
        };
        Ok::<_, DataFusionError>(stream::try_unfold(parts, Parts::next).try_flatten())
    })
    .try_flatten()
    .boxed()
}

/// The rows of a spine in partitions.
struct DealtSpine {
    disk: Disk,
    /// By partition, then by where the rows come from.
    files: Vec<(usize, SpilledRows)>,
    seen: Arc<Seen>,
    /// By group the first time of the rows and the last.
    times: Vec<Option<(Instant, Instant)>>,
}

impl DealtSpine {
    async fn new(
        joiner: &Joiner,
        schema: SchemaRef,
        sources: usize,
        mut pieces: BoxStream<'static, Result<Piece>>,
    ) -> Result<Self> {
        let disk = Disk::new(schema, &joiner.env, SpillMetrics::new(&joiner.metrics, 0));
        let mut seen = Seen::new();
        let mut times = vec![None; joiner.groups.len()];
        // One for each source: rows of different sources come in any order.
        let mut dealers: Vec<_> = (0..sources)
            .map(|_| Dealer::new(&disk, sources, joiner.reserve()))
            .collect();
        while let Some((source, batch)) = pieces.try_next().await? {
            for (group, times) in joiner.groups.iter().zip(&mut times) {
                for time in group.times(&batch)?.into_iter().flatten() {
                    let (first, last) = times.get_or_insert((time, time));
                    (*first, *last) = (time.min(*first), time.max(*last));
                }
            }
            let partitions = noted(&joiner.groups[0].keys(&batch)?, &mut seen)?;
            dealers[source].deal(&batch, &partitions)?;
        }
        let dealt = dealers.into_iter().map(Dealer::finish);
        let mut dealt = dealt.collect::<Result<Vec<_>>>()?;
        let mut files = Vec::new();
        for partition in 0..PARTITIONS {
            let of_sources = dealt
                .iter_mut()
                .filter_map(|source| source[partition].take());
            files.extend(of_sources.map(|file| (partition, file)));
        }
        Ok(Self {
            disk,
            files,
            seen: Arc::new(seen),
            times,
        })
    }

    /// All rows with their partitions, in order. A file goes when it has been read.
    fn read(self) -> BoxStream<'static, Result<Piece>> {
        let Self { disk, files, .. } = self;
        stream::iter(files)
            .map(move |(partition, file)| {
                let batches = disk.read(file);
                Ok::<_, DataFusionError>(batches.map_ok(move |batch| (partition, batch)))
            })
            .try_flatten()
            .boxed()
    }
}

async fn deal_history(
    group: &Group,
    joiner: &Joiner,
    times: Option<(Instant, Instant)>,
    seen: &Arc<Seen>,
) -> Result<SpilledVersions> {
    let metrics = GroupMetrics::new(&joiner.metrics, group.table.name());
    let reach = group.reach(times)?;
    let history = group.reachable(reach, &metrics.pass);
    let prune = Prune {
        event_time: reach,
        ..group.cuts().prune()
    };
    let mut columns = rank::columns(group.table.record_identifier);
    columns.features.extend(distinct(&group.features));
    let spilling = SpillMetrics::new(&joiner.metrics, 0);
    let memory = joiner.reserve();
    SpilledVersions::deal(
        &history,
        &columns,
        &prune,
        seen,
        joiner.tasks,
        (&joiner.env, spilling, &memory),
        &metrics.pass,
    )
    .await
}

/// What is still to be joined.
struct Parts {
    reader: SpineReader,
    /// Halves of a part that did not fit after all; the next one last.
    ahead: Vec<Spine>,
    /// By group.
    histories: Vec<SpilledVersions>,
    joiner: Joiner,
}

impl Parts {
    /// The rows of the next part, and what is left then.
    async fn next(mut self) -> Result<Option<(BoxStream<'static, Result<RecordBatch>>, Self)>> {
        loop {
            let spine = match self.ahead.pop() {
                Some(spine) => Some(spine),
                None => self.reader.next().await?,
            };
            let Some(spine) = spine else {
                return Ok(None);
            };
            let partitions = spine.partitions();
            let versions = self.histories.iter();
            let versions = versions.map(|versions| versions.of(partitions.clone()));
            match self.joiner.join(spine, Some(versions.collect())).await? {
                Ok(joined) => return Ok(Some((joined.into_stream(), self))),
                Err((spine, _)) if spine.rows > 1 => {
                    let (first, second) = spine.halves();
                    self.ahead.extend([second, first]);
                }
                Err((_, error)) => return Err(error),
            }
        }
    }
}
