//! Where a function's requests without a qualifier go. It belongs to the function and makes no revision.

use kip_spec::qualifier::share;
use kip_spec::{QualifierName, code};

use crate::report::{Report, shown};
use crate::section::Section;
use crate::value::refuse;

/// Qualifiers with their shares in millionths.
pub type Traffic = Vec<(QualifierName, u32)>;

/// All requests, in millionths.
pub(crate) const WHOLE: u32 = 1_000_000;

/// Nothing where the version that serves gets everything.
pub(crate) fn read(section: &Section<'_>, report: &mut Report<'_>) -> Traffic {
    let before = report.count();
    let mut traffic = Traffic::new();
    for field in section.entries("traffic", report) {
        let to = field.key.parse::<QualifierName>();
        let to = to.ok().filter(|to| !matches!(to, QualifierName::Ordinal(_) | QualifierName::Revision(_)));
        let Some(to) = to else {
            let what = format!("`{}` is no alias, version or LATEST", shown(field.key));
            let hint = "write the name of an alias, a published version such as 3, or LATEST";
            report.add(field.key_at, refuse(&field, code::MANIFEST_BAD_VALUE, what).hint(hint));
            continue;
        };
        match field.node.scalar().and_then(share) {
            Some(share) => traffic.push((to, share)),
            None => {
                let what = "a share is a percentage with at most four places";
                report.add(field.node.at, refuse(&field, code::MANIFEST_BAD_VALUE, what).hint("write 90 or 0.5"));
            }
        }
    }
    let sum: u32 = traffic.iter().map(|(_, share)| *share).fold(0, u32::saturating_add);
    if let Some(field) = section.field("traffic").filter(|_| report.count() == before)
        && sum != WHOLE
    {
        let what = format!("the shares add up to {} %", f64::from(sum) / 10_000.0);
        let hint = "they must add up to 100: {prod: 90, LATEST: 10}";
        report.add(field.node.at, refuse(&field, code::MANIFEST_CONTRADICTION, what).hint(hint));
    }
    if traffic == [(QualifierName::Latest, WHOLE)] { Traffic::new() } else { traffic }
}
