//! `holdfast operator`: what acts on the custom resources, in a pod of the cluster or beside it.
//!
//! Any number of replicas may run; one leads and does the work. A replica that leads no longer ends with an error, and whoever started
//! it starts it anew. SIGTERM ends the work, gives the lease back and ends with 0.

use crate::context::Context;
use crate::error::{Exit, Failure, Result};
use ::operator::clock::Clock;
use ::operator::run::{Ended, Options, run as run_operator};

/// Arguments of `operator`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The namespace it runs in, where its Lease lies (HOLDFAST_NAMESPACE; default: holdfast-system). A Repository there may
    /// have what a tenant's may not
    #[arg(long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// What this replica is called, in its Lease and in events (default: HOSTNAME, which in a pod is its name)
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
}

/// Runs it.
pub async fn run(ctx: &Context, args: Args) -> Result<Exit> {
    // An empty variable counts as not set.
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let name = args.name.or_else(|| variable("HOSTNAME")).unwrap_or_else(|| "holdfast-operator".into());
    let namespace = args.namespace.or_else(|| variable("HOLDFAST_NAMESPACE"));
    let namespace = namespace.unwrap_or_else(|| "holdfast-system".into());
    let client = ctx.client().await?;
    // From here on a signal is answered by the operator, which gives its lease back.
    let _changing = ctx.interrupt.changing()?;
    let options = Options { namespace, name, local: ctx.local() };
    let clock = Clock::real(ctx.env.clone());
    let ended = run_operator(client, clock, ctx.env.clone(), options, ctx.interrupt.asked()).await?;
    if !ctx.out.is_table() {
        let why = match &ended {
            Ended::Stopped => "stopped",
            Ended::Lost(_) => "lost",
        };
        ctx.out.value(&serde_json::json!({ "ended": why }))?;
    }
    match ended {
        Ended::Stopped => Ok(Exit::Done),
        Ended::Lost(why) => Err(Failure::new(Exit::Failed, format!("this replica leads no longer: {why}"))
            .next("start it again; whoever leads now goes on with the work")),
    }
}
