//! Roles of a deployment: the secrets of their credentials, which `--role-map` names.

use kip_serverless::DeclaredFunction;
use kip_serverless::plan::{FieldChange, Step};
use kip_wire::{RoleInfo, RoleSettings};
use serde_json::Value;

use super::archive::Archive;
use super::compare::FunctionPlan;
use crate::arguments::RoleMap;
use crate::client::{Client, segment};

/// Maps the roles that a command line names. A function whose role is mapped anew is deployed again.
pub(super) async fn set(
    client: &Client,
    maps: &[RoleMap],
    plans: &mut [(&DeclaredFunction, FunctionPlan, Option<Archive>)],
) -> anyhow::Result<()> {
    if maps.is_empty() {
        return Ok(());
    }
    let before: Vec<RoleInfo> = client.get("/api/v1/role-map").await?;
    for RoleMap { role, secret } in maps {
        let settings = RoleSettings { secret: secret.clone() };
        let _set: RoleInfo = client.put(&format!("/api/v1/role-map/{}", segment(role)), &settings).await?;
        if before.iter().any(|known| known.role == *role && known.secret == *secret) {
            continue;
        }
        for (function, plan, _) in plans.iter_mut() {
            let own = function.config.get("role").and_then(Value::as_str).unwrap_or_default();
            let is_meant = own == role || own.rsplit_once("role/").is_some_and(|(_, name)| name == role);
            if is_meant && plan.configuration.is_nothing() {
                let change = FieldChange {
                    path: format!("credentials of {role}"),
                    from: Value::Null,
                    to: secret.as_str().into(),
                };
                plan.configuration = Step::Change(vec![change]);
            }
        }
    }
    Ok(())
}
