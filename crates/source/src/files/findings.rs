//! Findings, so many that a person reads them and no more than fit into memory.

use std::collections::BTreeMap;

use repo::{Finding, Severity};

/// How many findings of one code are kept; of the rest only the number is told.
const KEPT: u64 = 1_000;

#[derive(Default)]
pub(super) struct Findings {
    kept: Vec<Finding>,
    counts: BTreeMap<&'static str, (u64, Severity)>,
}

impl Findings {
    pub fn push(&mut self, finding: Finding) {
        let (count, worst) = self.counts.entry(finding.code).or_insert((0, finding.severity));
        *count += 1;
        *worst = (*worst).max(finding.severity);
        if *count <= KEPT {
            self.kept.push(finding);
        }
    }

    pub fn all(mut self) -> Vec<Finding> {
        for (code, (count, severity)) in self.counts {
            if count > KEPT {
                let message = format!("{} more findings of this kind are not listed", count - KEPT);
                self.kept.push(Finding::new(severity, code, "…", message));
            }
        }
        self.kept
    }
}
