//! Commands around a verb: `actions: {pre-deploy: [{run: npm install, path: ./code}]}`. They are listed here and never run.

use kip_manifest::report::{Report, shown};
use kip_manifest::tree::Node;
use kip_spec::{Problem, code};

use crate::node::{get, items, pairs, text};
use crate::project::{Action, ActionKind};
use crate::scope::{Scope, absolute};

/// The actions of a resource, or of the document.
pub(crate) fn read(body: &Node, this: &str, scope: &Scope<'_>, report: &mut Report<'_>) -> Vec<Action> {
    let mut all = Vec::new();
    for (key, steps) in get(body, "actions").map(pairs).unwrap_or_default() {
        let when = key.scalar().unwrap_or_default();
        for step in items(steps) {
            // An action is not needed for a deployment: what has no value in it is a warning.
            let step = scope.resolve(step, this, &mut Vec::new(), &|_| true, report);
            let (kind, words) = match (text(&step, "run"), text(&step, "component"), get(&step, "plugin")) {
                (Some(run), _, _) => (ActionKind::Run, run.to_owned()),
                (_, Some(verb), _) => (ActionKind::Component, verb.to_owned()),
                (_, _, Some(plugin)) => (ActionKind::Plugin, plugin.scalar().unwrap_or_default().to_owned()),
                _ => {
                    let message = format!("a step of `{}` has neither `run` nor `component` nor `plugin`", shown(when));
                    let problem = Problem::new(code::FILE_VALUE, message);
                    report.add(step.at, problem.hint("write `- run: COMMAND`, with `path:` for its folder"));
                    continue;
                }
            };
            let directory = absolute(scope.source.directory, text(&step, "path").unwrap_or(".")).into();
            all.push(Action { when: when.to_owned(), kind, text: words, directory });
        }
    }
    all
}
