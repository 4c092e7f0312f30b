//! From the name of an operation to what carries it out.

use axum::response::Response;
use kip_spec::account::REGION;
use serde_json::{Value, json};

use crate::error::{FcError, FcResult};
use crate::request::{Request, empty, json, required};
use crate::routes::Operation;
use crate::settings::{self, VPC};
use crate::{
    Fc, aliases, asynchronous, domains, functions, instances, invoke, layers, provision, tags, tasks, triggers,
    versions,
};

/// What a change is about that names it in its body, for the audit record.
pub(crate) fn subject(request: &Request) -> String {
    let named = || request.object().ok()?.get("domainName")?.as_str().map(str::to_owned);
    tags::subject(request).or_else(named).unwrap_or_default()
}

/// Carries out an operation. Whether its caller may was asked before.
pub(crate) async fn carry_out(fc: &Fc, operation: Operation, request: &Request) -> FcResult<Response> {
    match operation {
        Operation::CreateFunction => functions::create(fc, request).await,
        Operation::GetFunction => functions::get(fc, request).await,
        Operation::UpdateFunction => functions::update(fc, request).await,
        Operation::DeleteFunction => functions::remove(fc, request).await,
        Operation::ListFunctions => functions::list(fc, request).await,
        Operation::GetFunctionCode => functions::code(fc, request).await,
        Operation::InvokeFunction => invoke::invoke(fc, request).await,
        Operation::DisableFunctionInvocation => functions::disable(fc, request).await,
        Operation::EnableFunctionInvocation => functions::enable(fc, request).await,
        Operation::PublishFunctionVersion => versions::publish(fc, request).await,
        Operation::ListFunctionVersions => versions::list(fc, request).await,
        Operation::DeleteFunctionVersion => versions::remove(fc, request).await,
        Operation::CreateAlias => aliases::create(fc, request).await,
        Operation::GetAlias => aliases::get(fc, request).await,
        Operation::UpdateAlias => aliases::update(fc, request).await,
        Operation::DeleteAlias => aliases::remove(fc, request).await,
        Operation::ListAliases => aliases::list(fc, request).await,
        Operation::CreateTrigger => triggers::create(fc, request).await,
        Operation::GetTrigger => triggers::get(fc, request).await,
        Operation::UpdateTrigger => triggers::update(fc, request).await,
        Operation::DeleteTrigger => triggers::remove(fc, request).await,
        Operation::ListTriggers => triggers::list(fc, request).await,
        Operation::PutProvisionConfig => provision::put_provision(fc, request).await,
        Operation::GetProvisionConfig => provision::get_provision(fc, request).await,
        Operation::DeleteProvisionConfig => provision::remove_provision(fc, request).await,
        Operation::ListProvisionConfigs => provision::list_provisions(fc, request).await,
        Operation::PutScalingConfig => provision::put_scaling(fc, request).await,
        Operation::GetScalingConfig => provision::get_scaling(fc, request).await,
        Operation::DeleteScalingConfig => provision::remove_scaling(fc, request).await,
        Operation::ListScalingConfigs => provision::list_scalings(fc, request).await,
        Operation::PutConcurrencyConfig => provision::put_concurrency(fc, request).await,
        Operation::GetConcurrencyConfig => provision::get_concurrency(fc, request).await,
        Operation::DeleteConcurrencyConfig => provision::remove_concurrency(fc, request).await,
        Operation::ListConcurrencyConfigs => provision::list_concurrency(fc, request).await,
        Operation::PutAsyncInvokeConfig => asynchronous::put(fc, request).await,
        Operation::GetAsyncInvokeConfig => asynchronous::get(fc, request).await,
        Operation::DeleteAsyncInvokeConfig => asynchronous::remove(fc, request).await,
        Operation::ListAsyncInvokeConfigs => asynchronous::list(fc, request).await,
        Operation::GetAsyncTask => tasks::get(fc, request).await,
        Operation::ListAsyncTasks => tasks::list(fc, request).await,
        Operation::StopAsyncTask => tasks::stop(fc, request).await,
        Operation::ListInstances => instances::list(fc, request).await,
        Operation::CreateLayerVersion => layers::create(fc, request).await,
        Operation::ListLayerVersions => layers::versions(fc, request).await,
        Operation::GetLayerVersion => layers::get(fc, request).await,
        Operation::DeleteLayerVersion => layers::remove(fc, request).await,
        Operation::GetLayerVersionByArn => layers::get_by_arn(fc, request).await,
        Operation::ListLayers => layers::list(fc, request).await,
        Operation::PutLayerACL => layers::put_acl(fc, request).await,
        Operation::CreateCustomDomain => domains::create(fc, request).await,
        Operation::GetCustomDomain => domains::get(fc, request).await,
        Operation::UpdateCustomDomain => domains::update(fc, request).await,
        Operation::DeleteCustomDomain => domains::remove(fc, request).await,
        Operation::ListCustomDomains => domains::list(fc, request).await,
        Operation::CreateVpcBinding => bind(fc, request).await,
        Operation::ListVpcBindings => bindings(fc, request).await,
        Operation::DeleteVpcBinding => unbind(fc, request).await,
        Operation::TagResources => tags::tag_resources(fc, request).await,
        Operation::UntagResources => tags::untag_resources(fc, request).await,
        Operation::ListTagResources => tags::list_tag_resources(fc, request).await,
        Operation::DescribeRegions => {
            Ok(json(json!({"Regions": {"Region": [{"RegionId": REGION, "LocalName": REGION}]}})))
        }
    }
}

/// The networks that a function is bound to: kept, and without effect on one's own machine.
async fn bound(fc: &Fc, request: &Request) -> FcResult<(kip_spec::FunctionName, Vec<Value>)> {
    let name = fc.control.require(request.function())?.name().clone();
    let kept = settings::read(fc, VPC, &name, "").await?;
    Ok((name, kept.and_then(|kept| kept.as_array().cloned()).unwrap_or_default()))
}

async fn bind(fc: &Fc, request: &Request) -> FcResult<Response> {
    let given = request.object()?;
    let id = Value::from(required(&given, "vpcId")?);
    let (name, mut ids) = bound(fc, request).await?;
    if ids.contains(&id) {
        return Err(FcError::invalid(format!("function '{name}' is bound to {id} already")));
    }
    ids.push(id);
    settings::put(fc, VPC, &name, "", &Value::from(ids), request.author()).await?;
    Ok(empty())
}

async fn bindings(fc: &Fc, request: &Request) -> FcResult<Response> {
    let (_, ids) = bound(fc, request).await?;
    Ok(json(json!({"vpcIds": ids})))
}

async fn unbind(fc: &Fc, request: &Request) -> FcResult<Response> {
    let (name, mut ids) = bound(fc, request).await?;
    ids.retain(|id| *id != request.parameter(1));
    settings::put(fc, VPC, &name, "", &Value::from(ids), request.author()).await?;
    Ok(empty())
}
