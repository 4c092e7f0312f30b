//! What follows a deployment: the rollout that its manifest asks for.

use std::collections::BTreeMap;

use kip_control::{AliasChange, Error};
use kip_manifest::Rollout;
use kip_spec::{FunctionName, Problem, QualifierName, code};
use kip_store::Author;
use kip_wire::{DeployedVersion, RolloutInfo, RolloutSettings};

use crate::Api;

/// Begins the rollouts of what was deployed, as one unit that goes on though its caller leaves. Also gives what the deployer is to know: the
/// deployment itself is done.
pub(crate) async fn begin_rollouts(
    api: &Api,
    deployed: &[DeployedVersion],
    mut rollouts: BTreeMap<FunctionName, Rollout>,
    by: String,
) -> (Vec<RolloutInfo>, Vec<Problem>) {
    let asked = deployed.iter().filter_map(|made| Some((made.clone(), rollouts.remove(&made.function)?)));
    let (asked, api): (Vec<_>, Api) = (asked.collect(), api.clone());
    let unit = kip_host::tasks::spawn("rollouts of a deployment", async move {
        let (mut begun, mut told) = (Vec::new(), Vec::new());
        for (made, rollout) in asked {
            match begin(&api, &made, &rollout, &by).await {
                Ok(info) => begun.extend(info),
                Err(error) => {
                    let why = Problem::from(error);
                    let message = format!(
                        "`{}`: {} is deployed, and the rollout of its alias `{}` did not begin: {}",
                        made.function, made.label, rollout.alias, why.message
                    );
                    let hint =
                        why.hint.unwrap_or_else(|| format!("kip rollout status {} {}", made.function, rollout.alias));
                    told.push(Problem::new(why.code, message).hint(hint));
                }
            }
        }
        (begun, told)
    });
    unit.await.unwrap_or_else(|error| {
        let message = format!("the rollouts of the deployment did not begin: {error}");
        (Vec::new(), vec![Problem::new(code::SHUTTING_DOWN, message)])
    })
}

/// None where the alias was made just now, and so has nothing to move from.
async fn begin(api: &Api, made: &DeployedVersion, rollout: &Rollout, by: &str) -> Result<Option<RolloutInfo>, Error> {
    let author = || Author { by: by.to_owned(), if_match: None };
    let (name, alias) = (made.function.as_str(), rollout.alias.as_str());
    // It would take a number for nothing.
    if api.control.rollout_is_open(&made.function, &rollout.alias) {
        return Err(Error::RolloutOpen { function: name.to_owned(), alias: alias.to_owned() });
    }
    let revision = QualifierName::Revision(made.version);
    let (published, _) = api.control.publish(name, Some(revision), String::new(), author()).await?;
    let to = published.number.map_or(QualifierName::Revision(made.version), QualifierName::Number);
    if api.control.alias(name, alias).is_err() {
        api.control
            .set_alias(name, alias, AliasChange { targets: vec![(to, 1_000_000)], ..AliasChange::default() }, author())
            .await?;
        return Ok(None);
    }
    let settings = RolloutSettings { to: to.to_string(), ..rollout.settings.clone() };
    api.control.start_rollout(name, alias, &settings, author()).await.map(Some)
}
