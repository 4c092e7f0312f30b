//! Where requests of a function without a qualifier go.

use kip_spec::{FunctionName, QualifierName};
use kip_store::TrafficShare;

use crate::control::Control;
use crate::error::Error;
use crate::qualifiers::{WHOLE, percent};

impl Control {
    /// Traffic as it may be stored: of qualifiers that the function has, whose shares add up.
    pub(crate) async fn check_traffic(&self, function: &FunctionName, shares: &[TrafficShare]) -> Result<(), Error> {
        let sum: u64 = shares.iter().map(|share| u64::from(share.millionths)).sum();
        if sum != u64::from(WHOLE) {
            return Err(Error::AliasInvalid {
                detail: format!("the traffic of `{function}` adds up to {} %", percent(sum)),
                hint: "traffic must add up to 100: {prod: 90, LATEST: 10}".to_owned(),
            });
        }
        for share in shares.iter().filter(|share| share.to != QualifierName::Latest) {
            let unknown = || Error::NoQualifier { function: function.to_string(), qualifier: share.to.to_string() };
            let cell = self.cell(function.as_str()).ok_or_else(unknown)?;
            match &share.to {
                QualifierName::Alias(name) => drop(self.held_alias(&cell, name.as_str())?),
                QualifierName::Number(_) => {
                    self.shared.revision_of(&cell, &share.to).await?.ok_or_else(unknown)?;
                }
                _ => {
                    return Err(Error::AliasInvalid {
                        detail: format!("`{}` cannot have traffic", share.to),
                        hint: "traffic goes to aliases, published versions and LATEST".to_owned(),
                    });
                }
            }
        }
        Ok(())
    }

    /// Holds the traffic of a deployment that was committed.
    pub(crate) async fn direct_traffic(&self, function: &FunctionName, shares: Vec<TrafficShare>) -> Result<(), Error> {
        let cell = self.require(function.as_str())?;
        for version in self.shared.traffic_versions(&cell, &shares).await? {
            cell.call_by_itself(version);
        }
        cell.hold_traffic(shares);
        Ok(())
    }
}
