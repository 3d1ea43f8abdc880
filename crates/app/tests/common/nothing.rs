//! A place without a node: no command is run and no volume is reached.

use std::time::Duration;

use app::rules::{ExecOutcome, Hands, HandsError, Target};
use app::volumes::{Existing, Located, Previous, VolumeCopy, VolumeError, VolumeRestored, Volumes};
use async_trait::async_trait;
use repo::{Cancel, Outcome, Progress, Reader, Root, Writer};
use serde_json::Value;

const WHY: &str = "there is no node";

/// Where only objects matter.
pub struct Nothing;

#[async_trait]
impl Hands for Nothing {
    async fn exec(&self, _: &Target, _: &[String], timeout: Duration) -> Result<ExecOutcome, HandsError> {
        Err(HandsError::Timeout(timeout))
    }
}

impl Volumes for Nothing {
    fn locate(&self, _: &Value, _: &Value, _: &[Value]) -> Result<Located, String> {
        Err(WHY.into())
    }

    fn backup(
        &self,
        _: &Located,
        _: &Writer,
        _: Option<(&Reader, &Previous)>,
        _: &Cancel,
        _: &dyn Progress,
    ) -> Result<Outcome<VolumeCopy>, VolumeError> {
        Err(VolumeError::Unreachable(WHY.into()))
    }

    fn restore(
        &self,
        _: &Reader,
        _: &Root,
        _: &Located,
        _: Existing,
        _: &Cancel,
        _: &dyn Progress,
    ) -> Result<Outcome<VolumeRestored>, VolumeError> {
        Err(VolumeError::Unreachable(WHY.into()))
    }
}
