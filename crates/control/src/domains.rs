//! Custom domains: host names whose paths lead to functions. What holds at the gateway; their owner is the facade that stores them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kip_spec::QualifierName;
use kip_spec::function::{Cors, HttpAuth};
use parking_lot::RwLock;
use regex::{Regex, RegexBuilder};

/// Bytes that an expression may take in memory.
const LARGEST_EXPRESSION: usize = 1 << 16;

/// A domain.
#[derive(Debug, Clone)]
pub struct Domain {
    /// Its name in lower case; `*.example.com` stands for all names one label below.
    pub name: String,
    /// Where its paths lead, most special one first; [`Domain::new`] sorts them.
    routes: Vec<DomainRoute>,
    /// Who may call; none asks the triggers of the function.
    pub auth: Option<HttpAuth>,
    /// Which pages may call; none asks the triggers of the function.
    pub cors: Option<Cors>,
    /// It is not served in the clear.
    pub https_only: bool,
}

/// Where a path of a domain leads.
#[derive(Debug, Clone)]
pub struct DomainRoute {
    /// A path, or the beginning of paths with a `*` at its end.
    pub path: String,
    /// The function.
    pub function: String,
    /// The qualifier with which it is called.
    pub qualifier: Option<QualifierName>,
    /// Methods that are taken; empty means those that the triggers of the function take.
    pub methods: Vec<String>,
    /// How the path is changed for the function: the first rule that fits.
    pub rewrites: Vec<Rewrite>,
}

/// A rule that changes paths.
#[derive(Debug, Clone)]
pub struct Rewrite {
    expression: Regex,
    replacement: String,
}

impl Rewrite {
    /// Replaces one path by another one.
    ///
    /// # Errors
    /// What is wrong, in a sentence.
    pub fn equal(from: &str, to: &str) -> Result<Self, String> {
        Self::compile(&format!("^{}$", regex::escape(from)), to.replace('$', "$$"))
    }

    /// Replaces paths in which `*` stands for anything; `$1` is what the first one stands for.
    ///
    /// # Errors
    /// What is wrong, in a sentence.
    pub fn wildcard(from: &str, to: &str) -> Result<Self, String> {
        let parts: Vec<String> = from.split('*').map(regex::escape).collect();
        Self::compile(&format!("^{}$", parts.join("(.*)")), groups(to))
    }

    /// Replaces what an expression matches; `$1` is its first group.
    ///
    /// # Errors
    /// What is wrong, in a sentence.
    pub fn regex(from: &str, to: &str) -> Result<Self, String> {
        Self::compile(from, groups(to))
    }

    fn compile(expression: &str, replacement: String) -> Result<Self, String> {
        let built = RegexBuilder::new(expression).size_limit(LARGEST_EXPRESSION).build();
        let expression = built.map_err(|error| format!("`{expression}` cannot be used: {error}"))?;
        Ok(Self { expression, replacement })
    }

    fn apply(&self, path: &str) -> Option<String> {
        self.expression.is_match(path).then(|| self.expression.replace(path, self.replacement.as_str()).into_owned())
    }
}

/// `$1x` as people mean it: the first group, and an x.
fn groups(replacement: &str) -> String {
    let mut text = String::new();
    let mut rest = replacement;
    while let Some((before, after)) = rest.split_once('$') {
        text.push_str(before);
        let digits = after.len() - after.trim_start_matches(|byte: char| byte.is_ascii_digit()).len();
        match digits {
            0 => text.push_str("$$"),
            digits => text.push_str(&format!("${{{}}}", &after[..digits])),
        }
        rest = &after[digits..];
    }
    text + rest
}

impl DomainRoute {
    fn fits(&self, path: &str) -> bool {
        match self.path.strip_suffix('*') {
            Some(beginning) => path.starts_with(beginning),
            None => path == self.path,
        }
    }

    /// The path that the function sees.
    pub fn rewritten(&self, path: &str) -> String {
        let changed = self.rewrites.iter().find_map(|rule| rule.apply(path));
        match changed {
            Some(changed) if changed.starts_with('/') => changed,
            Some(changed) => format!("/{changed}"),
            None => path.to_owned(),
        }
    }
}

impl Domain {
    /// A domain with these routes.
    pub fn new(
        name: String,
        mut routes: Vec<DomainRoute>,
        auth: Option<HttpAuth>,
        cors: Option<Cors>,
        https_only: bool,
    ) -> Self {
        // A whole path before the beginnings of paths, and a longer beginning before a shorter one.
        routes.sort_by_key(|route| (route.path.ends_with('*'), std::cmp::Reverse(route.path.len())));
        Self { name, routes, auth, cors, https_only }
    }

    /// The route of a path.
    pub fn route(&self, path: &str) -> Option<&DomainRoute> {
        self.routes.iter().find(|route| route.fits(path))
    }
}

/// The domains there are, for all threads of the gateway. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Domains {
    by_name: Arc<RwLock<BTreeMap<String, Arc<Domain>>>>,
    /// Whether there is any: those who have none pay one look.
    any: Arc<AtomicBool>,
}

impl Domains {
    /// The domain that a host name belongs to; a port behind it does not matter.
    pub fn find(&self, host: &str) -> Option<Arc<Domain>> {
        if !self.any.load(Ordering::Relaxed) {
            return None;
        }
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let by_name = self.by_name.read();
        let wide = || by_name.get(&format!("*.{}", name.split_once('.')?.1));
        by_name.get(&name).or_else(wide).cloned()
    }

    /// Puts a domain in the place of what has its name.
    pub fn put(&self, domain: Domain) {
        let mut by_name = self.by_name.write();
        by_name.insert(domain.name.clone(), Arc::new(domain));
        self.any.store(true, Ordering::Relaxed);
    }

    /// Removes a domain.
    pub fn remove(&self, name: &str) {
        let mut by_name = self.by_name.write();
        by_name.remove(name);
        self.any.store(!by_name.is_empty(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(path: &str, function: &str) -> DomainRoute {
        DomainRoute {
            path: path.to_owned(),
            function: function.to_owned(),
            qualifier: None,
            methods: Vec::new(),
            rewrites: Vec::new(),
        }
    }

    #[test]
    fn a_whole_path_comes_first_and_then_the_longest_beginning() {
        let routes = vec![route("/*", "all"), route("/a/*", "a"), route("/a/b", "exact"), route("/a/b/*", "ab")];
        let domain = Domain::new("d".to_owned(), routes, None, None, false);
        let found = |path: &str| domain.route(path).map(|route| route.function.as_str());
        for (path, function) in
            [("/", "all"), ("/a", "all"), ("/a/", "a"), ("/a/b", "exact"), ("/a/b/c", "ab"), ("/a/bc", "a")]
        {
            assert_eq!(found(path), Some(function), "{path}");
        }
        let few = Domain::new("d".to_owned(), vec![route("/x", "x")], None, None, false);
        assert!(few.route("/x/").is_none() && few.route("/").is_none());
    }

    #[test]
    fn names_are_found_with_ports_in_any_case_and_one_label_below_a_star() {
        let domains = Domains::default();
        assert!(domains.find("a.example.com").is_none());
        for name in ["a.example.com", "*.example.com"] {
            domains.put(Domain::new(name.to_owned(), Vec::new(), None, None, false));
        }
        let found = |host: &str| domains.find(host).map(|domain| domain.name.clone());
        assert_eq!(found("A.Example.com:5470").as_deref(), Some("a.example.com"));
        assert_eq!(found("b.example.com.").as_deref(), Some("*.example.com"));
        assert_eq!((found("example.com"), found("x.b.example.com")), (None, None));
        domains.remove("a.example.com");
        assert_eq!(found("a.example.com").as_deref(), Some("*.example.com"));
    }

    #[test]
    fn rules_change_paths() {
        let rewritten =
            |rules: Vec<Rewrite>, path: &str| DomainRoute { rewrites: rules, ..route("/*", "f") }.rewritten(path);
        let equal = || Rewrite::equal("/old", "/new$1").unwrap();
        assert_eq!(rewritten(vec![equal()], "/old"), "/new$1");
        assert_eq!(rewritten(vec![equal()], "/older"), "/older");
        assert_eq!(rewritten(vec![Rewrite::wildcard("/api/*", "/$1").unwrap()], "/api/a/b"), "/a/b");
        assert_eq!(rewritten(vec![Rewrite::wildcard("/*/x.*", "/$2x/$1").unwrap()], "/a/x.png"), "/pngx/a");
        let regex = Rewrite::regex("^/api/.+?/(.*)", "/api/v2/$1").unwrap();
        assert_eq!(rewritten(vec![equal(), regex], "/api/v1/a/b"), "/api/v2/a/b");
        assert_eq!(rewritten(vec![Rewrite::wildcard("/*", "$1").unwrap()], "/x"), "/x", "a path begins with a slash");
        assert!(Rewrite::regex("(", "x").is_err());
        assert!(Rewrite::regex("(a{1000}){1000}", "x").is_err(), "it is too large");
    }
}
