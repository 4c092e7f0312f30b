//! Values of `${…}`: what a file says about itself, its environment and its neighbours.

use std::cell::RefCell;
use std::collections::BTreeSet;

use kip_manifest::report::{Report, shown};
use kip_manifest::tree::{Kind, Node};
use kip_spec::account::{ACCOUNT, REGION};
use kip_spec::{Problem, code};

use crate::Source;
use crate::expression::{Expression, Piece, parse, pieces};
use crate::node::{get, items, pairs, text_node};

/// References within references; a ring reaches it.
const DEEPEST: usize = 24;
/// Characters that one value may grow to.
const LONGEST: usize = 1 << 20;

/// A resource with `extend` carried out and its references unresolved.
#[derive(Debug, Clone)]
pub(crate) struct ResourceBody {
    pub(crate) key: Node,
    pub(crate) name: String,
    /// The whole resource.
    pub(crate) body: Node,
    /// Its `props`, with the template below.
    pub(crate) props: Node,
}

/// Whence references take their values.
#[derive(Debug)]
pub(crate) struct Scope<'a> {
    pub(crate) source: &'a Source<'a>,
    pub(crate) root: Node,
    pub(crate) resources: Vec<ResourceBody>,
    /// Whether `${name.output.x}` names a resource, as in edition 1.
    pub(crate) bare_names: bool,
    /// Which resource refers to which.
    pub(crate) arrows: RefCell<BTreeSet<(String, String)>>,
}

/// Why a reference has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    code: kip_spec::Code,
    message: String,
    hint: String,
}

impl Fault {
    fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code: code::FILE_VARIABLE, message: message.into(), hint: hint.into() }
    }
}

impl Scope<'_> {
    /// A value with its references resolved. What has no value is a problem; where `is_wiring` says that a way has no effect here, it
    /// is a warning, and the value is empty.
    pub(crate) fn resolve(
        &self,
        node: &Node,
        this: &str,
        way: &mut Vec<String>,
        is_wiring: &dyn Fn(&[String]) -> bool,
        report: &mut Report<'_>,
    ) -> Node {
        let kind = match &node.kind {
            Kind::Text(text) => {
                return self.expand(text, node, this, 0).unwrap_or_else(|fault| {
                    let problem = Problem::new(fault.code, fault.message).hint(fault.hint);
                    if is_wiring(way) {
                        report.warn(node.at, problem);
                        text_node(node.at, "")
                    } else {
                        report.add(node.at, problem);
                        node.clone()
                    }
                });
            }
            Kind::List(all) => {
                Kind::List(all.iter().map(|item| self.resolve(item, this, way, is_wiring, report)).collect())
            }
            Kind::Map(all) => {
                let mut made = Vec::with_capacity(all.len());
                for (key, value) in all {
                    way.push(key.scalar().unwrap_or_default().to_owned());
                    made.push((key.clone(), self.resolve(value, this, way, is_wiring, report)));
                    way.pop();
                }
                Kind::Map(made)
            }
            other => other.clone(),
        };
        Node { at: node.at, kind }
    }

    /// A text with its references replaced. A text that is one reference takes whatever that names, maps too.
    fn expand(&self, text: &str, node: &Node, this: &str, depth: usize) -> Result<Node, Fault> {
        if !text.contains("${") {
            return Ok(node.clone());
        }
        let parts = pieces(text);
        if let [Piece::Expression(only)] = parts.as_slice() {
            let found = self.value(only, node, this, depth)?;
            return Ok(match found {
                Some(mut found) => {
                    // A problem in it is one of where it is used, unless it is a map with places of its own.
                    if !matches!(found.kind, Kind::Map(_) | Kind::List(_)) {
                        found.at = node.at;
                    }
                    found
                }
                None => node.clone(),
            });
        }
        let mut made = String::new();
        for part in parts {
            match part {
                Piece::Text(text) => made.push_str(text),
                Piece::Expression(inner) => match self.value(inner, node, this, depth)? {
                    Some(found) => made.push_str(found.scalar().unwrap_or_default()),
                    None => made.push_str(&format!("${{{inner}}}")),
                },
            }
            if made.len() > LONGEST {
                return Err(Fault::new("the references make the value too long", "refer to less"));
            }
        }
        Ok(text_node(node.at, made))
    }

    /// The value of an expression; `None` where it is none of this format's and stays as it is written.
    fn value(&self, inner: &str, node: &Node, this: &str, depth: usize) -> Result<Option<Node>, Fault> {
        if depth > DEEPEST {
            let message = format!("`${{{}}}` refers to itself in the end", shown(inner));
            return Err(Fault::new(message, "break the ring: write one of the values out"));
        }
        let Some(read) = parse(inner) else {
            // Operators and the like; names of shells' variables never have them.
            let message = format!("`${{{}}}` is no reference and no call", shown(inner));
            return Err(Fault::new(message, "write `${vars.x}`, `${env('X', 'default')}` or the value itself"));
        };
        self.evaluate(&read, node, this, depth + 1)
    }

    fn evaluate(&self, expression: &Expression, node: &Node, this: &str, depth: usize) -> Result<Option<Node>, Fault> {
        match expression {
            Expression::Literal(text) => Ok(Some(text_node(node.at, text.clone()))),
            Expression::Reference(way) => self.look_up(way, node, this, depth),
            Expression::Call(name, arguments) => self.call(name, arguments, node, this, depth).map(Some),
        }
    }

    fn call(&self, name: &str, arguments: &[Expression], node: &Node, this: &str, depth: usize) -> Result<Node, Fault> {
        // `${env(REGION)}` without quotes means the same.
        let first = match arguments.first() {
            Some(Expression::Reference(way)) => way.join("."),
            Some(Expression::Literal(text)) => text.clone(),
            Some(Expression::Call(..)) | None => String::new(),
        };
        let text = |text: String| Ok(text_node(node.at, text));
        match name {
            "env" => match (self.source.variables.get(&first).filter(|value| !value.is_empty()), arguments.get(1)) {
                (Some(value), _) => text(value.clone()),
                (None, Some(default)) => {
                    Ok(self.evaluate(default, node, this, depth)?.unwrap_or_else(|| text_node(node.at, "")))
                }
                (None, None) => Err(Fault::new(
                    format!("the variable {} of the environment is not set", shown(&first)),
                    format!("set it: export {first}=VALUE, or give a default: ${{env('{first}', 'default')}}"),
                )),
            },
            "path" => text(absolute(self.source.directory, &first)),
            "config" => match first.as_str() {
                "AccountID" => text(ACCOUNT.to_owned()),
                "region" => text(REGION.to_owned()),
                _ => Err(Fault::new(
                    format!("`config('{}')` has no value here: there is no account of the vendor", shown(&first)),
                    "use `${env(…)}` for a credential that the program needs",
                )),
            },
            "file" => std::fs::read_to_string(self.source.directory.join(&first))
                .map(|read| text_node(node.at, read))
                .map_err(|error| Fault {
                    code: code::FILE_REFERENCE,
                    message: format!("{} cannot be read: {error}", shown(&first)),
                    hint: "paths are relative to the file".to_owned(),
                }),
            "secret" => match self.source.variables.get(&first) {
                Some(value) => text(value.clone()),
                None => Err(Fault::new(
                    format!("the secret {} is not in the environment", shown(&first)),
                    format!("set it: export {first}=VALUE"),
                )),
            },
            // In `flow` and in names of actions; nothing else may hold one.
            "regex" => text(first),
            other => Err(Fault::new(
                format!("`{}()` is no function of the format", shown(other)),
                "known are env, config, path, file, secret and regex",
            )),
        }
    }

    fn look_up(&self, way: &[String], node: &Node, this: &str, depth: usize) -> Result<Option<Node>, Fault> {
        let [first, rest @ ..] = way else { return Ok(None) };
        let missing = || {
            let hint = match first.as_str() {
                "vars" => format!("add it below `vars:`, or write the value itself: {}", way.join(".")),
                _ => "look for a slip in the name".to_owned(),
            };
            Fault::new(format!("`${{{}}}` has no value: there is no such key", shown(&way.join("."))), hint)
        };
        match first.as_str() {
            "vars" => {
                let vars = get(&self.root, "vars").ok_or_else(missing)?;
                self.walk(vars, rest, this, depth)?.ok_or_else(missing).map(Some)
            }
            "this" | "that" => {
                let own = self.resource(this).ok_or_else(missing)?;
                self.of_resource(own, rest, node, depth)?.ok_or_else(missing).map(Some)
            }
            "resources" => {
                let [name, rest @ ..] = rest else { return Err(missing()) };
                self.of_other(name, rest, node, this, depth)?.ok_or_else(missing).map(Some)
            }
            name if self.bare_names && self.resource(name).is_some() => {
                self.of_other(name, rest, node, this, depth)?.ok_or_else(missing).map(Some)
            }
            // A variable of a shell or of a program, which is not ours to replace.
            _ => Ok(None),
        }
    }

    fn resource(&self, name: &str) -> Option<&ResourceBody> {
        self.resources.iter().find(|resource| resource.name == name)
    }

    fn of_other(
        &self,
        name: &str,
        rest: &[String],
        node: &Node,
        this: &str,
        depth: usize,
    ) -> Result<Option<Node>, Fault> {
        let Some(other) = self.resource(name) else { return Ok(None) };
        if name != this {
            self.arrows.borrow_mut().insert((this.to_owned(), name.to_owned()));
        }
        self.of_resource(other, rest, node, depth)
    }

    /// `name`, `access`, `component`, `vars.x`, `props.x` or `output.x` of a resource.
    fn of_resource(
        &self,
        resource: &ResourceBody,
        rest: &[String],
        node: &Node,
        depth: usize,
    ) -> Result<Option<Node>, Fault> {
        let [part, rest @ ..] = rest else { return Ok(None) };
        let whole =
            |found: Option<&Node>| found.map_or(Ok(None), |found| self.walk(found, rest, &resource.name, depth));
        match part.as_str() {
            "name" => Ok(Some(text_node(node.at, resource.name.clone()))),
            "access" => {
                let access = get(&resource.body, "access").or_else(|| get(&self.root, "access"));
                Ok(Some(access.cloned().unwrap_or_else(|| text_node(node.at, "default"))))
            }
            "component" | "vars" => whole(get(&resource.body, part)),
            "props" => whole(Some(&resource.props)),
            "output" => match rest {
                [url, ..] if url == "url" => {
                    let name = self.function_name(resource, depth)?;
                    let gateway = self.source.gateway;
                    // The domain of a file's own is not served: the function's address stands for it.
                    let bare = rest.last().is_some_and(|last| last.contains("domain"));
                    let scheme = if bare { "" } else { "http://" };
                    Ok(Some(text_node(node.at, format!("{scheme}{gateway}/f/{name}/"))))
                }
                _ => self.walk(&resource.props, rest, &resource.name, depth)?.map_or_else(
                    || {
                        Err(Fault {
                            code: code::FILE_UNSUPPORTED,
                            message: format!("`output.{}` of `{}` is not known here", rest.join("."), resource.name),
                            hint: "known are output.url.system_url and the keys of its props".to_owned(),
                        })
                    },
                    |found| Ok(Some(found)),
                ),
            },
            _ => Ok(None),
        }
    }

    /// The name of a resource's function on the server.
    fn function_name(&self, resource: &ResourceBody, depth: usize) -> Result<String, Fault> {
        let text = |way: &[&str]| {
            let way: Vec<String> = way.iter().map(|key| (*key).to_owned()).collect();
            let found = self.walk(&resource.props, &way, &resource.name, depth)?;
            Ok(found.and_then(|found| found.scalar().map(str::to_owned)))
        };
        if let Some(name) = text(&["functionName"])? {
            return Ok(name);
        }
        Ok(match (text(&["service", "name"])?, text(&["function", "name"])?) {
            (Some(service), Some(function)) => crate::conversion::flat_name(&service, &function),
            _ => resource.name.clone(),
        })
    }

    /// The value at a way below a node, resolved.
    fn walk(&self, from: &Node, way: &[String], this: &str, depth: usize) -> Result<Option<Node>, Fault> {
        if depth > DEEPEST {
            return Err(Fault::new("references refer to each other in a ring", "write one of the values out"));
        }
        let resolved = match &from.kind {
            Kind::Text(text) if text.contains("${") => self.expand(text, from, this, depth + 1)?,
            _ => from.clone(),
        };
        let Some((first, rest)) = way.split_first() else {
            return self.deep(&resolved, this, depth + 1).map(Some);
        };
        let next = match &resolved.kind {
            Kind::Map(_) => get(&resolved, first),
            Kind::List(_) => first.parse::<usize>().ok().and_then(|index| items(&resolved).get(index)),
            _ => None,
        };
        next.map_or(Ok(None), |next| self.walk(next, rest, this, depth + 1))
    }

    /// A value with all references in it resolved.
    fn deep(&self, node: &Node, this: &str, depth: usize) -> Result<Node, Fault> {
        if depth > DEEPEST {
            return Err(Fault::new("references refer to each other in a ring", "write one of the values out"));
        }
        let kind = match &node.kind {
            Kind::Text(text) => return self.expand(text, node, this, depth + 1),
            Kind::List(all) => {
                Kind::List(all.iter().map(|item| self.deep(item, this, depth + 1)).collect::<Result<_, _>>()?)
            }
            Kind::Map(_) => {
                let pair = |(key, value): &(Node, Node)| Ok((key.clone(), self.deep(value, this, depth + 1)?));
                Kind::Map(pairs(node).iter().map(pair).collect::<Result<_, Fault>>()?)
            }
            other => other.clone(),
        };
        Ok(Node { at: node.at, kind })
    }
}

/// A path of the file, absolute and without `..`.
pub(crate) fn absolute(directory: &std::path::Path, path: &str) -> String {
    use std::path::{Component, PathBuf};
    let mut made = PathBuf::new();
    for part in directory.join(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(made.pop()),
            other => made.push(other),
        }
    }
    made.display().to_string()
}
