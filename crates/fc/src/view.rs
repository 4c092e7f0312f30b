//! A function as it is read from control and store, and as clients see it.

use kip_control::LATEST;
use kip_spec::function::FunctionSpec;
use kip_spec::{Code, FunctionName, QualifierName};
use kip_store::{FunctionId, RevisionExtra};
use kip_wire::VersionStatus;
use serde_json::{Map, Value, json};

use crate::arn;
use crate::declaration::fresh;
use crate::error::FcResult;
use crate::record::FunctionRecord;
use crate::rendering::render;
use crate::request::{qualifier, time};
use crate::settings::{self, DISABLED, TAGS};
use crate::{Fc, code, layers};

/// A revision of a function.
#[derive(Debug)]
pub(crate) struct FunctionView {
    pub(crate) name: FunctionName,
    pub(crate) id: FunctionId,
    pub(crate) spec: FunctionSpec,
    pub(crate) extra: Option<RevisionExtra>,
    pub(crate) record: Option<FunctionRecord>,
    /// When the function was made, and when this revision was, milliseconds since 1970.
    pub(crate) created: i64,
    pub(crate) changed: i64,
    pub(crate) status: Option<VersionStatus>,
}

impl Fc {
    /// The revision that a qualifier means; LATEST is the one that was deployed last.
    pub(crate) async fn view(&self, name: &str, asked: &str) -> FcResult<FunctionView> {
        let cell = self.control.require(name)?;
        let revisions = self.control.revisions(name).await?;
        let newest = revisions.last().map(|revision| revision.id);
        let serving = cell.serving();
        let id = match qualifier(asked)? {
            QualifierName::Latest => newest.unwrap_or(serving.id),
            QualifierName::Alias(alias) => {
                let alias = self.control.alias(name, alias.as_str())?;
                alias.targets.first().and_then(|target| target.revision).unwrap_or(serving.id)
            }
            other => self.control.revision_named(name, &other).await?.id,
        };
        let info = revisions.iter().find(|revision| revision.id == id);
        let spec = self.control.revision(id).await?.unwrap_or_else(|| serving.spec.clone());
        let extra = self.control.extra(id).await?;
        let record = extra.as_ref().and_then(FunctionRecord::read);
        let oldest = revisions.first().map(|revision| revision.created).unwrap_or_default();
        Ok(FunctionView {
            name: cell.name().clone(),
            id: serving.function,
            created: record.as_ref().and_then(|record| record.created).unwrap_or(oldest),
            changed: info.map(|info| info.created).unwrap_or_default(),
            status: info.and_then(|info| info.status.clone()),
            spec,
            extra,
            record,
        })
    }

    /// A function in the vendor's words.
    pub(crate) async fn shown(&self, view: &FunctionView, asked: &str) -> FcResult<Value> {
        let mut shown = self.configuration(view);
        let mut put = |name: &str, value: Value| drop(shown.insert(name.to_owned(), value));
        let code = view.record.as_ref().and_then(|record| record.code.as_ref());
        put("functionName", view.name.as_str().into());
        put("functionArn", arn::function(view.name.as_str(), (asked != LATEST).then_some(asked)).into());
        put("functionId", format!("{:08}", view.id.0).into());
        put("codeSize", code.map_or(0, |code| code.size).into());
        put("codeChecksum", code.map(|code| code.checksum.as_str()).unwrap_or_default().into());
        put("createdTime", time(view.created).into());
        put("lastModifiedTime", time(view.changed).into());
        put("state", "Active".into());
        match &view.status {
            Some(VersionStatus::Candidate) => put("lastUpdateStatus", "InProgress".into()),
            Some(VersionStatus::Failed { code, why, .. }) => {
                put("lastUpdateStatus", "Failed".into());
                put("lastUpdateStatusReason", why.as_str().into());
                put("lastUpdateStatusReasonCode", reason_code(*code).into());
            }
            _ => put("lastUpdateStatus", "Successful".into()),
        }
        if let Some(record) = &view.record
            && let Some(layers) = layers::described(self, &record.config).await?
        {
            put("layers", layers);
        }
        let tags = settings::read(self, TAGS, &view.name, "").await?;
        put("tags", tags.unwrap_or_else(|| json!([])));
        if let Some(disabled) = settings::read(self, DISABLED, &view.name, "").await? {
            put("invocationRestriction", disabled);
        }
        Ok(Value::from(shown))
    }

    /// What was sent, but where the declaration says something else now: the last one who wrote wins.
    fn configuration(&self, view: &FunctionView) -> Map<String, Value> {
        let now = render(&view.spec);
        let Some(record) = &view.record else { return now };
        let mut shown = record.config.clone();
        let tree = record.code.as_ref().map(|code| self.codes.tree(&code.sha256)).unwrap_or_default();
        let sent = record.created.and_then(|_| fresh(view.name.clone(), &record.config, &tree).ok());
        let sent = sent.map(|spec| render(&spec)).unwrap_or_default();
        for (name, value) in &now {
            if sent.get(name) != Some(value) {
                shown.insert(name.clone(), value.clone());
            }
        }
        for name in sent.keys().filter(|name| !now.contains_key(*name)) {
            shown.remove(name);
        }
        shown
    }

    /// The tree of a function's code.
    pub(crate) fn tree_of(&self, code: Option<&code::CodeInfo>, spec: &FunctionSpec) -> std::path::PathBuf {
        code.map_or_else(|| spec.program.working_directory(), |code| self.codes.tree(&code.sha256))
    }
}

/// Ours, where clients show one.
fn reason_code(code: Code) -> String {
    code.to_string()
}
