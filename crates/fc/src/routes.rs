//! The table of operations: method and path, the role that each needs, and whether it changes something.

use http::Method;
use kip_wire::Role;

/// An operation of the interface. The names are the vendor's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    CreateFunction,
    GetFunction,
    UpdateFunction,
    DeleteFunction,
    ListFunctions,
    GetFunctionCode,
    InvokeFunction,
    DisableFunctionInvocation,
    EnableFunctionInvocation,
    PublishFunctionVersion,
    ListFunctionVersions,
    DeleteFunctionVersion,
    CreateAlias,
    GetAlias,
    UpdateAlias,
    DeleteAlias,
    ListAliases,
    CreateTrigger,
    GetTrigger,
    UpdateTrigger,
    DeleteTrigger,
    ListTriggers,
    PutProvisionConfig,
    GetProvisionConfig,
    DeleteProvisionConfig,
    ListProvisionConfigs,
    PutScalingConfig,
    GetScalingConfig,
    DeleteScalingConfig,
    ListScalingConfigs,
    PutConcurrencyConfig,
    GetConcurrencyConfig,
    DeleteConcurrencyConfig,
    ListConcurrencyConfigs,
    PutAsyncInvokeConfig,
    GetAsyncInvokeConfig,
    DeleteAsyncInvokeConfig,
    ListAsyncInvokeConfigs,
    GetAsyncTask,
    ListAsyncTasks,
    StopAsyncTask,
    ListInstances,
    CreateLayerVersion,
    ListLayerVersions,
    GetLayerVersion,
    DeleteLayerVersion,
    GetLayerVersionByArn,
    ListLayers,
    PutLayerACL,
    CreateCustomDomain,
    GetCustomDomain,
    UpdateCustomDomain,
    DeleteCustomDomain,
    ListCustomDomains,
    CreateVpcBinding,
    ListVpcBindings,
    DeleteVpcBinding,
    TagResources,
    UntagResources,
    ListTagResources,
    DescribeRegions,
}

/// A method at a path.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) method: Method,
    /// Below the prefix; `*` is a parameter.
    pub(crate) path: &'static str,
    pub(crate) operation: Operation,
    /// The vendor's name of the operation.
    pub(crate) name: &'static str,
    pub(crate) role: Role,
    /// Its name in the audit record, if it changes something.
    pub(crate) action: Option<&'static str>,
}

macro_rules! routes {
    ($($method:ident $path:literal $name:ident $role:ident $($action:literal)?;)*) => {
        /// All operations.
        pub(crate) static ROUTES: &[Route] = &[$(Route {
            method: Method::$method,
            path: $path,
            operation: Operation::$name,
            name: stringify!($name),
            role: Role::$role,
            action: routes!(@action $($action)?),
        }),*];
    };
    (@action) => { None };
    (@action $action:literal) => { Some($action) };
}

routes! {
    POST "functions" CreateFunction Deploy "fc.CreateFunction";
    GET "functions" ListFunctions Operate;
    GET "functions/*" GetFunction Operate;
    PUT "functions/*" UpdateFunction Deploy "fc.UpdateFunction";
    DELETE "functions/*" DeleteFunction Deploy "fc.DeleteFunction";
    GET "functions/*/code" GetFunctionCode Deploy;
    POST "functions/*/invocations" InvokeFunction Invoke;
    POST "functions/*/invoke/disable" DisableFunctionInvocation Deploy "fc.DisableFunctionInvocation";
    POST "functions/*/invoke/enable" EnableFunctionInvocation Deploy "fc.EnableFunctionInvocation";
    POST "functions/*/versions" PublishFunctionVersion Deploy "fc.PublishFunctionVersion";
    GET "functions/*/versions" ListFunctionVersions Operate;
    DELETE "functions/*/versions/*" DeleteFunctionVersion Deploy "fc.DeleteFunctionVersion";
    POST "functions/*/aliases" CreateAlias Deploy "fc.CreateAlias";
    GET "functions/*/aliases" ListAliases Operate;
    GET "functions/*/aliases/*" GetAlias Operate;
    PUT "functions/*/aliases/*" UpdateAlias Deploy "fc.UpdateAlias";
    DELETE "functions/*/aliases/*" DeleteAlias Deploy "fc.DeleteAlias";
    POST "functions/*/triggers" CreateTrigger Deploy "fc.CreateTrigger";
    GET "functions/*/triggers" ListTriggers Operate;
    GET "functions/*/triggers/*" GetTrigger Operate;
    PUT "functions/*/triggers/*" UpdateTrigger Deploy "fc.UpdateTrigger";
    DELETE "functions/*/triggers/*" DeleteTrigger Deploy "fc.DeleteTrigger";
    PUT "functions/*/provision-config" PutProvisionConfig Operate "fc.PutProvisionConfig";
    GET "functions/*/provision-config" GetProvisionConfig Operate;
    DELETE "functions/*/provision-config" DeleteProvisionConfig Operate "fc.DeleteProvisionConfig";
    GET "provision-configs" ListProvisionConfigs Operate;
    PUT "functions/*/scaling-config" PutScalingConfig Operate "fc.PutScalingConfig";
    GET "functions/*/scaling-config" GetScalingConfig Operate;
    DELETE "functions/*/scaling-config" DeleteScalingConfig Operate "fc.DeleteScalingConfig";
    GET "scaling-configs" ListScalingConfigs Operate;
    PUT "functions/*/concurrency" PutConcurrencyConfig Deploy "fc.PutConcurrencyConfig";
    GET "functions/*/concurrency" GetConcurrencyConfig Operate;
    DELETE "functions/*/concurrency" DeleteConcurrencyConfig Deploy "fc.DeleteConcurrencyConfig";
    GET "concurrency-configs" ListConcurrencyConfigs Operate;
    PUT "functions/*/async-invoke-config" PutAsyncInvokeConfig Deploy "fc.PutAsyncInvokeConfig";
    GET "functions/*/async-invoke-config" GetAsyncInvokeConfig Operate;
    DELETE "functions/*/async-invoke-config" DeleteAsyncInvokeConfig Deploy "fc.DeleteAsyncInvokeConfig";
    GET "async-invoke-configs" ListAsyncInvokeConfigs Operate;
    GET "functions/*/async-tasks/*" GetAsyncTask Invoke;
    GET "functions/*/async-tasks" ListAsyncTasks Operate;
    PUT "functions/*/async-tasks/*/stop" StopAsyncTask Operate "fc.StopAsyncTask";
    GET "functions/*/instances" ListInstances Operate;
    POST "layers/*/versions" CreateLayerVersion Deploy "fc.CreateLayerVersion";
    GET "layers/*/versions" ListLayerVersions Operate;
    GET "layers/*/versions/*" GetLayerVersion Operate;
    DELETE "layers/*/versions/*" DeleteLayerVersion Deploy "fc.DeleteLayerVersion";
    GET "layerarn/*" GetLayerVersionByArn Operate;
    GET "layers" ListLayers Operate;
    PUT "layers/*/acl" PutLayerACL Deploy "fc.PutLayerACL";
    POST "custom-domains" CreateCustomDomain Deploy "fc.CreateCustomDomain";
    GET "custom-domains" ListCustomDomains Operate;
    GET "custom-domains/*" GetCustomDomain Operate;
    PUT "custom-domains/*" UpdateCustomDomain Deploy "fc.UpdateCustomDomain";
    DELETE "custom-domains/*" DeleteCustomDomain Deploy "fc.DeleteCustomDomain";
    POST "functions/*/vpc-bindings" CreateVpcBinding Deploy "fc.CreateVpcBinding";
    GET "functions/*/vpc-bindings" ListVpcBindings Operate;
    DELETE "functions/*/vpc-bindings/*" DeleteVpcBinding Deploy "fc.DeleteVpcBinding";
    POST "tags-v2" TagResources Deploy "fc.TagResources";
    DELETE "tags-v2" UntagResources Deploy "fc.UntagResources";
    GET "tags-v2" ListTagResources Operate;
    GET "regions" DescribeRegions Invoke;
}

/// Paths of operations that are refused, each with what to do instead.
static REFUSED: &[(&str, &str)] = &[
    ("functions/*/sessions", "sessions are not supported"),
    ("functions/*/sessions/*", "sessions are not supported"),
    ("functions/*/sessions/*/pause", "sessions are not supported"),
    ("functions/*/sessions/*/resume", "sessions are not supported"),
    ("functions/*/snapshots", "snapshots are not supported"),
    ("functions/*/snapshots/*", "snapshots are not supported"),
    ("snapshots", "snapshots are not supported"),
    ("resource-groups", "resource groups are not supported"),
];

/// What a path and a method name.
#[derive(Debug)]
pub(crate) enum Match {
    /// An operation with the parameters of its path, still encoded.
    Route(&'static Route, Vec<String>),
    /// An operation that is refused.
    Refused(&'static str),
    /// The path is there, with other methods.
    OtherMethod,
    /// Nothing.
    Unknown,
}

/// Finds the operation. `path` is below the prefix and still encoded: a slash inside of a name must not part it.
pub(crate) fn find(method: &Method, path: &str) -> Match {
    let mut is_there = false;
    for route in ROUTES {
        let Some(parameters) = parameters(route.path, path) else { continue };
        if route.method == *method {
            return Match::Route(route, parameters);
        }
        is_there = true;
    }
    if is_there {
        return Match::OtherMethod;
    }
    match REFUSED.iter().find(|(pattern, _)| parameters(pattern, path).is_some()) {
        Some((_, why)) => Match::Refused(why),
        None => Match::Unknown,
    }
}

fn parameters(pattern: &str, path: &str) -> Option<Vec<String>> {
    let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
    let mut found = Vec::new();
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(found),
            (Some("*"), Some(part)) if !part.is_empty() => found.push(part.to_owned()),
            (Some(wanted), Some(given)) if wanted == given => {}
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_operation_is_found_by_its_path_and_a_slash_in_a_name_parts_nothing() {
        for route in ROUTES {
            let path = route.path.replace('*', "a%2Fb");
            match find(&route.method, &path) {
                Match::Route(found, parameters) => {
                    assert_eq!(found.operation, route.operation);
                    assert_eq!(parameters, vec!["a%2Fb"; route.path.matches('*').count()]);
                }
                other => panic!("{path}: {other:?}"),
            }
            assert_eq!(route.action.is_none(), route.method == Method::GET || route.name == "InvokeFunction");
        }
        assert!(matches!(find(&Method::PATCH, "functions"), Match::OtherMethod));
        assert!(matches!(find(&Method::GET, "nothing"), Match::Unknown));
        assert!(matches!(find(&Method::GET, "functions/"), Match::Unknown));
        assert!(matches!(find(&Method::POST, "functions/f/sessions"), Match::Refused(_)));
    }

    #[test]
    fn the_page_has_a_row_for_each_operation_of_the_interface() {
        let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/fc-api.md");
        let text = std::fs::read_to_string(page).unwrap();
        let (_, table) = text.split_once("## Operations").unwrap();
        let rows: Vec<(&str, &str)> = table
            .lines()
            .filter_map(|line| {
                let cells: Vec<&str> = line.split('|').map(str::trim).collect();
                let is_row = cells.len() == 5 && ["yes", "stored", "refused"].contains(&cells[2]);
                is_row.then(|| (cells[1], cells[2]))
            })
            .collect();
        assert_eq!(rows.iter().map(|(name, _)| name).collect::<BTreeSet<_>>().len(), 73);
        assert_eq!(rows.len(), 73);
        let served: BTreeSet<&str> = ROUTES.iter().map(|route| route.name).collect();
        let listed = rows.iter().filter(|(_, state)| *state != "refused").map(|(name, _)| *name);
        assert_eq!(listed.collect::<BTreeSet<_>>(), served);
    }

    #[test]
    fn actions_have_names_of_their_own() {
        let names: BTreeSet<&str> = ROUTES.iter().filter_map(|route| route.action).collect();
        assert!(names.iter().all(|name| name.starts_with("fc.")));
    }
}
