//! The cut itself: volumes side by side, while the objects are read once more.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use repo::{Finding, Outcome, Progress, Reader, Timestamp, Writer};

use super::{BackupOptions, Means, PlannedVolume, PreviousPoint, blocking, from_repo};
use crate::error::Error;
use crate::object::ObjectKey;
use crate::volumes::{VolumeCopy, VolumeError};

/// What volumes are read with.
#[derive(Clone)]
pub(super) struct Reading {
    pub writer: Arc<Writer>,
    /// The previous point, if it can be read.
    pub previous: Option<(Arc<Reader>, Arc<PreviousPoint>)>,
}

/// One volume as it was read.
#[derive(Debug)]
pub(super) struct ReadVolume {
    pub started: Timestamp,
    pub copy: Result<VolumeCopy, String>,
    pub findings: Vec<Finding>,
}

/// Reads all volumes that can be reached. A volume out of reach is a result; a repository that fails is an error.
pub(super) async fn read_volumes(
    planned: &[PlannedVolume],
    reading: &Reading,
    means: &Means,
    options: &BackupOptions,
    progress: Arc<dyn Progress + Send + Sync>,
) -> Result<BTreeMap<ObjectKey, ReadVolume>, Error> {
    let mut results = BTreeMap::new();
    let reachable = planned.iter().filter(|p| p.located.is_ok());
    let mut reads = futures::stream::iter(reachable)
        .map(|planned| read_one(planned, reading.clone(), means.clone(), progress.clone()))
        .buffer_unordered(options.volumes_at_once.max(1));
    while let Some(result) = reads.next().await {
        let (key, read) = result?;
        results.insert(key, read);
    }
    Ok(results)
}

async fn read_one(
    planned: &PlannedVolume,
    reading: Reading,
    means: Means,
    progress: Arc<dyn Progress + Send + Sync>,
) -> Result<(ObjectKey, ReadVolume), Error> {
    let key = planned.key.clone();
    let Ok(located) = planned.located.clone() else { return Err(Error::Cancelled) };
    let volume = planned.volume.clone();
    let name = (key.namespace.clone(), key.name.clone());
    let started = means.env.now();
    let result = blocking(move || {
        // The claim may have a new volume under the old name since: then nothing of the old one can be trusted.
        let previous = reading.previous.as_ref().and_then(|(reader, all)| {
            let (was, previous) = all.volumes.get(&name)?;
            (*was == volume).then_some((reader.as_ref(), previous))
        });
        means.volumes.backup(&located, &reading.writer, previous, &means.cancel, progress.as_ref())
    })
    .await?;
    match result {
        Ok(Outcome { done, findings }) => Ok((key, ReadVolume { started, copy: Ok(done), findings })),
        Err(VolumeError::Repository(e)) => Err(from_repo(e)),
        Err(e @ (VolumeError::Unreachable(_) | VolumeError::NotEmpty(_))) => {
            Ok((key, ReadVolume { started, copy: Err(e.to_string()), findings: Vec::new() }))
        }
    }
}
