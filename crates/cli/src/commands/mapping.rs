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
    /// Another host name, or `.DOMAIN=.NEW` for every host below; may be given several times
    #[arg(long, value_name = "HOST=NEW", help_heading = "Mapping")]
    pub host: Vec<String>,
    /// Another node; may be given several times
    #[arg(long, value_name = "NODE=NEW", help_heading = "Mapping")]
    pub map_node: Vec<String>,
    /// Another priority class; may be given several times
    #[arg(long, value_name = "CLASS=NEW", help_heading = "Mapping")]
    pub priority_class: Vec<String>,
    /// Another ingress class; may be given several times
    #[arg(long, value_name = "CLASS=NEW", help_heading = "Mapping")]
    pub ingress_class: Vec<String>,
    /// A file with mappings and patches (docs/cli.md), Velero's resource modifiers, or Stork's ResourceTransformation; may be
    /// given several times, and options are added to it
    #[arg(long, value_name = "FILE", help_heading = "Mapping")]
    pub mapping: Vec<PathBuf>,
}

impl Args {
    /// Checked, so that applying it can trust it.
    pub fn transform(&self) -> Result<Transform> {
        let mut mapping = Mapping::default();
        for file in &self.mapping {
            let text = std::fs::read_to_string(file)
                .map_err(|e| usage_io(io(format!("cannot read --mapping {}", file.display()), &e)))?;
            let read = Mapping::from_yaml(&text).map_err(|e| bad(&e).while_doing(file.display()))?;
            mapping.add(read).map_err(|e| bad(&e).while_doing(file.display()))?;
        }
        self.to.iter().try_for_each(|pair| mapping.add_namespace(pair)).map_err(|e| bad(&e))?;
        self.storage_class
            .iter()
            .try_for_each(|pair| mapping.add_storage_class(pair))
            .map_err(|e| bad(&e))?;
        self.registry.iter().try_for_each(|pair| mapping.add_registry(pair)).map_err(|e| bad(&e))?;
        self.host.iter().try_for_each(|pair| mapping.add_host(pair)).map_err(|e| bad(&e))?;
        self.map_node.iter().try_for_each(|pair| mapping.add_node(pair)).map_err(|e| bad(&e))?;
        self.priority_class
            .iter()
            .try_for_each(|pair| mapping.add_priority_class(pair))
            .map_err(|e| bad(&e))?;
        self.ingress_class
            .iter()
            .try_for_each(|pair| mapping.add_ingress_class(pair))
            .map_err(|e| bad(&e))?;
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
