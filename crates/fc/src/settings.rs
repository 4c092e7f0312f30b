//! Settings of functions that are no part of a revision: kept as they were sent, by kind and qualifier.

use kip_spec::FunctionName;
use kip_store::{Author, Change, Object, Seq, SettingChange, StoredSetting};
use serde_json::{Value, json};

use crate::Fc;
use crate::error::{FcError, FcResult};

/// Tags.
pub(crate) const TAGS: &str = "fc.tags";
/// That a function takes no invocations.
pub(crate) const DISABLED: &str = "fc.disabled";
/// Provisioned instances as they were sent.
pub(crate) const PROVISION: &str = "fc.provision";
/// Scaling as it was sent.
pub(crate) const SCALING: &str = "fc.scaling";
/// Reserved concurrency.
pub(crate) const CONCURRENCY: &str = "fc.concurrency";
/// The asynchronous configuration as it was sent.
pub(crate) const ASYNC: &str = "fc.async";
/// Networks that a function is bound to.
pub(crate) const VPC: &str = "fc.vpc";
/// The times of an alias.
pub(crate) const ALIAS: &str = "fc.alias";

/// A setting; none if there is none.
pub(crate) async fn read(
    fc: &Fc,
    kind: &'static str,
    function: &FunctionName,
    qualifier: &str,
) -> FcResult<Option<Value>> {
    let all = fc.control.settings(kind, Some(function.clone())).await?;
    let found = all.into_iter().find(|setting| setting.qualifier == qualifier);
    found.map(|setting| value(&setting)).transpose()
}

/// A setting's value.
pub(crate) fn value(setting: &StoredSetting) -> FcResult<Value> {
    serde_json::from_str(&setting.config).map_err(|error| {
        let own = kip_spec::code::STORE_FAILED;
        FcError::new(own, "InternalServerError", format!("a setting of {} cannot be read: {error}", setting.function))
    })
}

/// A setting as part of another change.
pub(crate) fn put_change(kind: &str, function: &FunctionName, qualifier: &str, value: &Value) -> SettingChange {
    let (function, qualifier, kind) = (function.clone(), qualifier.to_owned(), kind.to_owned());
    SettingChange::Put(StoredSetting { function, qualifier, kind, config: value.to_string(), rev: Seq(0) })
}

/// Its removal as part of another change.
pub(crate) fn remove_change(kind: &str, function: &FunctionName, qualifier: &str) -> SettingChange {
    let (function, qualifier, kind) = (function.clone(), qualifier.to_owned(), kind.to_owned());
    SettingChange::Remove { function, qualifier, kind }
}

/// Keeps a setting.
pub(crate) async fn put(
    fc: &Fc,
    kind: &'static str,
    function: &FunctionName,
    qualifier: &str,
    value: &Value,
    author: Author,
) -> FcResult<()> {
    let (function, qualifier, kind) = (function.clone(), qualifier.to_owned(), kind.to_owned());
    let object = Object::Setting(function.clone(), qualifier.clone(), kind.clone());
    let name = function.to_string();
    let setting = StoredSetting { function, qualifier, kind, config: value.to_string(), rev: Seq(0) };
    fc.control.change_kept(&name, object, Change::PutSetting(Box::new(setting)), author).await?;
    Ok(())
}

/// Removes a setting. False if there was none.
pub(crate) async fn remove(
    fc: &Fc,
    kind: &'static str,
    function: &FunctionName,
    qualifier: &str,
    author: Author,
) -> FcResult<bool> {
    let (function, qualifier, kind) = (function.clone(), qualifier.to_owned(), kind.to_owned());
    let object = Object::Setting(function.clone(), qualifier.clone(), kind.clone());
    let name = function.to_string();
    let change = Change::RemoveSetting { function, qualifier, kind };
    Ok(fc.control.change_kept(&name, object, change, author).await?)
}

/// That a function is disabled, as clients see it.
pub(crate) fn restriction(reason: &str, at: i64) -> Value {
    json!({"disable": true, "reason": reason, "lastModifiedTime": crate::request::time(at)})
}
