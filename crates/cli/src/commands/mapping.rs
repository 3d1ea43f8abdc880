//! What changes on the way to another place: the options that `restore`, `export` and `diff` share.

use crate::error::{Failure, Result, io};
use app::transform::{Mapping, MappingError, Transform};
use std::path::PathBuf;

/// The options.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Another namespace; may be given several times
    #[arg(long = "to", value_name = "NS=NEW", help_heading = "Mapping")]
    pub to: Vec<String>,
    /// Another storage class; may be given several times
    #[arg(long, value_name = "CLASS=NEW", help_heading = "Mapping")]
    pub storage_class: Vec<String>,
    /// Another image registry or prefix; may be given several times
    #[arg(long, value_name = "PREFIX=NEW", help_heading = "Mapping")]
    pub registry: Vec<String>,
    /// A file with mappings and JSON patches (docs/cli.md); options are added to it
    #[arg(long, value_name = "FILE", help_heading = "Mapping")]
    pub mapping: Option<PathBuf>,
}

impl Args {
    /// Checked, so that applying it can trust it.
    pub fn transform(&self) -> Result<Transform> {
        let mut mapping = match &self.mapping {
            None => Mapping::default(),
            Some(file) => {
                let text = std::fs::read_to_string(file)
                    .map_err(|e| usage_io(io(format!("cannot read --mapping {}", file.display()), &e)))?;
                Mapping::from_yaml(&text).map_err(|e| bad(&e).while_doing(file.display()))?
            }
        };
        self.to.iter().try_for_each(|pair| mapping.add_namespace(pair)).map_err(|e| bad(&e))?;
        self.storage_class
            .iter()
            .try_for_each(|pair| mapping.add_storage_class(pair))
            .map_err(|e| bad(&e))?;
        self.registry.iter().try_for_each(|pair| mapping.add_registry(pair)).map_err(|e| bad(&e))?;
        mapping.check().map_err(|e| bad(&e))
    }
}

fn bad(error: &MappingError) -> Failure {
    Failure::usage(error.to_string())
}

/// A file of options that cannot be read is bad input, whatever the reason.
pub fn usage_io(mut failure: Failure) -> Failure {
    failure.exit = crate::error::Exit::Usage;
    failure
}
