//! The order in which the resources of a file are deployed.

use kip_manifest::report::{Report, shown};
use kip_spec::{Problem, code};

use crate::node::{at, items};
use crate::scope::Scope;

/// The order of deployment: that of `flow`, else a resource after those that it refers to.
pub(crate) fn order(scope: &Scope<'_>, report: &mut Report<'_>) -> Vec<String> {
    let names: Vec<String> = scope.resources.iter().map(|resource| resource.name.clone()).collect();
    let mut order: Vec<String> = Vec::new();
    for step in at(&scope.root, &["flow", "deploy"]).map(items).unwrap_or_default() {
        for entry in items(step).iter().chain(step.scalar().map(|_| step)) {
            let written = entry.scalar().unwrap_or_default();
            let matching: Vec<&String> = match pattern(written) {
                Some(pattern) => names.iter().filter(|name| fits(&pattern, name)).collect(),
                None => names.iter().filter(|name| *name == written).collect(),
            };
            if matching.is_empty() {
                let message = format!("`flow` names `{}`, and there is no such resource", shown(written));
                let hint = format!("resources of the file: {}", names.join(", "));
                report.add(entry.at, Problem::new(code::FILE_REFERENCE, message).hint(hint));
            }
            for name in matching {
                if !order.contains(name) {
                    order.push(name.clone());
                }
            }
        }
    }
    let arrows = scope.arrows.borrow();
    // As many rounds as resources: then what is left is a ring, in the order of the file.
    for _ in 0..names.len() {
        for name in &names {
            let ready = arrows.iter().filter(|(from, _)| from == name).all(|(_, to)| order.contains(to));
            if ready && !order.contains(name) {
                order.push(name.clone());
            }
        }
    }
    order.extend(names.iter().filter(|name| !order.contains(name)).cloned().collect::<Vec<_>>());
    order
}

/// The pattern of `${regex('…')}`.
fn pattern(written: &str) -> Option<String> {
    let inner = written.strip_prefix("${")?.strip_suffix('}')?;
    let inner = inner.trim().strip_prefix("regex(")?.strip_suffix(')')?;
    Some(inner.trim().trim_matches(['\'', '"']).to_owned())
}

/// Whether a name fits a pattern of letters, `.`, `.*`, `.+`, `^` and `$`, which is what flows are written with.
fn fits(pattern: &str, name: &str) -> bool {
    let body = pattern.trim_start_matches('^').trim_end_matches('$');
    let (open_left, open_right) = (!pattern.starts_with('^'), !pattern.ends_with('$'));
    let starts = if open_left { name.len() } else { 0 };
    (0..=starts).filter(|at| name.is_char_boundary(*at)).any(|at| fits_here(body, &name[at..], open_right))
}

fn fits_here(pattern: &str, name: &str, open_right: bool) -> bool {
    let mut letters = pattern.chars();
    let Some(letter) = letters.next() else { return open_right || name.is_empty() };
    let rest = letters.as_str();
    let same = |c: char| letter == '.' || c == letter;
    let repeated =
        rest.strip_prefix('*').map(|rest| (rest, 0)).or_else(|| rest.strip_prefix('+').map(|rest| (rest, 1)));
    match repeated {
        Some((rest, least)) => {
            let most = name.chars().take_while(|c| same(*c)).count();
            (least..=most).rev().any(|count| {
                let end = name.char_indices().nth(count).map_or(name.len(), |(at, _)| at);
                fits_here(rest, &name[end..], open_right)
            })
        }
        None => name.chars().next().is_some_and(|c| same(c) && fits_here(rest, &name[c.len_utf8()..], open_right)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_flows() {
        assert!(fits(".", "a") && fits("api_.*", "api_1") && fits("^api", "api_2") && fits("_1$", "api_1"));
        assert!(!fits("^pi", "api") && !fits("api_.+$", "api_") && fits("a.+", "xaby"));
        assert_eq!(pattern("${regex('.+')}").as_deref(), Some(".+"));
        assert_eq!(pattern("api"), None);
    }
}
