//! What this facade keeps of a revision: the configuration as its caller sent it, and what is known of its code.

use kip_store::RevisionExtra;
use serde_json::{Map, Value, json};

use crate::code::CodeInfo;

/// The name of the facade among those that keep something of a revision.
const FACADE: &str = "fc";

/// What is kept of a revision.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct FunctionRecord {
    /// In the vendor's words, without the code.
    pub(crate) config: Map<String, Value>,
    /// When the function was made through this interface, milliseconds since 1970; none for one of kip.yaml.
    pub(crate) created: Option<i64>,
    /// Its code, where it was uploaded.
    pub(crate) code: Option<CodeInfo>,
}

impl FunctionRecord {
    /// From the store. What other facades keep is left out.
    pub(crate) fn read(extra: &RevisionExtra) -> Option<Self> {
        let all: Value = serde_json::from_str(&extra.text).ok()?;
        let own = all.get(FACADE)?;
        let code = extra.code.clone().zip(own["codeChecksum"].as_str()).map(|(sha256, checksum)| CodeInfo {
            sha256,
            size: own["codeSize"].as_u64().unwrap_or_default(),
            checksum: checksum.to_owned(),
        });
        Some(Self { config: own["config"].as_object()?.clone(), created: own["created"].as_i64(), code })
    }

    /// For the store, beside what other facades keep.
    pub(crate) fn write(&self, before: Option<&RevisionExtra>) -> RevisionExtra {
        let mut all: Map<String, Value> =
            before.and_then(|extra| serde_json::from_str(&extra.text).ok()).unwrap_or_default();
        let mut own = json!({"config": self.config, "created": self.created});
        if let Some(code) = &self.code {
            own["codeSize"] = code.size.into();
            own["codeChecksum"] = code.checksum.clone().into();
        }
        all.insert(FACADE.to_owned(), own);
        RevisionExtra { text: Value::from(all).to_string(), code: self.code.as_ref().map(|code| code.sha256.clone()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_others_words_stay() {
        let code = CodeInfo { sha256: "ab".to_owned(), size: 7, checksum: "123".to_owned() };
        let config = json!({"runtime": "custom", "cpu": 0.35, "vpcConfig": {"vpcId": ""}});
        let config = config.as_object().unwrap().clone();
        let record = FunctionRecord { config, created: Some(5), code: Some(code) };
        let other = RevisionExtra { text: r#"{"knative":{"a":1}}"#.to_owned(), code: None };
        let written = record.write(Some(&other));
        assert_eq!(FunctionRecord::read(&written), Some(record));
        assert_eq!(serde_json::from_str::<Value>(&written.text).unwrap()["knative"]["a"], 1);
        assert_eq!(FunctionRecord::read(&other), None);
    }
}
