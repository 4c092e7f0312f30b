//! Who may call a function over HTTP, where triggers of a facade say so and not the declaration: by qualifier, then by method.

use std::sync::Arc;

use kip_spec::QualifierName;
use kip_spec::function::{HttpAuth, HttpTrigger};

/// An HTTP trigger of a function.
#[derive(Debug, Clone)]
pub struct QualifiedTrigger {
    /// The one qualifier that it opens.
    pub qualifier: QualifierName,
    /// Who may call, and how.
    pub http: Arc<HttpTrigger>,
    /// Under which name its policy of tokens is kept.
    pub owner: String,
}

/// The HTTP triggers of a function. A qualifier without one is called with a key.
#[derive(Debug, Clone, Default)]
pub struct HttpTriggers(Vec<QualifiedTrigger>);

/// What holds for one request.
#[derive(Debug, Clone)]
pub struct HttpRule {
    /// Who may call, and how.
    pub http: Arc<HttpTrigger>,
    /// Whose policy of tokens holds; none where no trigger fits.
    pub owner: Option<String>,
}

/// How open a trigger is, least open first.
fn openness(auth: HttpAuth) -> u8 {
    match auth {
        HttpAuth::Key => 0,
        HttpAuth::Jwt => 1,
        HttpAuth::Anonymous => 2,
    }
}

impl HttpTriggers {
    /// Those of a function; none where it has none.
    pub fn new(triggers: Vec<QualifiedTrigger>) -> Option<Self> {
        (!triggers.is_empty()).then_some(Self(triggers))
    }

    /// The rule for a request. Of several triggers of the qualifier the one holds that takes the method, of several of these the most open
    /// one. A trigger never lends its authentication to the methods of another one.
    pub fn rule(&self, qualifier: Option<&QualifierName>, method: &str) -> HttpRule {
        let asked = qualifier.unwrap_or(&QualifierName::Latest);
        let of_qualifier = || self.0.iter().filter(|one| one.qualifier == *asked);
        let takes = |one: &&QualifiedTrigger| {
            one.http.methods.is_empty() || one.http.methods.iter().any(|taken| taken == method)
        };
        if let Some(found) = of_qualifier().filter(takes).max_by_key(|one| openness(one.http.auth)) {
            return HttpRule { http: found.http.clone(), owner: Some(found.owner.clone()) };
        }
        let Some(strictest) = of_qualifier().min_by_key(|one| openness(one.http.auth)) else {
            let http = HttpTrigger { auth: HttpAuth::Key, ..HttpTrigger::default() };
            return HttpRule { http: Arc::new(http), owner: None };
        };
        // The refusal names all methods that are taken.
        let methods = of_qualifier().flat_map(|one| one.http.methods.iter().cloned()).collect();
        let http = HttpTrigger { methods, ..HttpTrigger::clone(&strictest.http) };
        HttpRule { http: Arc::new(http), owner: Some(strictest.owner.clone()) }
    }

    /// Whether somebody without a key or a token may call some qualifier.
    pub fn is_open(&self) -> bool {
        self.0.iter().any(|one| one.http.auth == HttpAuth::Anonymous)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trigger(qualifier: &str, auth: HttpAuth, methods: &[&str]) -> QualifiedTrigger {
        let methods = methods.iter().map(|method| (*method).to_owned()).collect();
        let http = HttpTrigger { auth, methods, ..HttpTrigger::default() };
        QualifiedTrigger {
            qualifier: qualifier.parse().unwrap(),
            http: Arc::new(http),
            owner: format!("{qualifier}-{auth:?}"),
        }
    }

    fn rule(
        triggers: &[QualifiedTrigger],
        asked: Option<&str>,
        method: &str,
    ) -> (HttpAuth, Vec<String>, Option<String>) {
        let asked = asked.map(|text| text.parse().unwrap());
        let rule = HttpTriggers(triggers.to_vec()).rule(asked.as_ref(), method);
        (rule.http.auth, rule.http.methods.clone(), rule.owner)
    }

    #[test]
    fn a_trigger_opens_its_qualifier_alone() {
        let all = [trigger("prod", HttpAuth::Anonymous, &[]), trigger("LATEST", HttpAuth::Jwt, &["GET"])];
        assert_eq!(rule(&all, Some("prod"), "GET").0, HttpAuth::Anonymous);
        for latest in [None, Some("LATEST"), Some("latest")] {
            assert_eq!(
                rule(&all, latest, "GET"),
                (HttpAuth::Jwt, vec!["GET".to_owned()], Some("LATEST-Jwt".to_owned()))
            );
        }
        for other in ["1", "r2", "v3", "test"] {
            assert_eq!(rule(&all, Some(other), "GET"), (HttpAuth::Key, vec![], None), "{other}");
        }
        assert!(HttpTriggers::new(Vec::new()).is_none());
    }

    #[test]
    fn triggers_of_one_qualifier_divide_its_methods() {
        let all = [
            trigger("LATEST", HttpAuth::Anonymous, &["GET"]),
            trigger("LATEST", HttpAuth::Key, &["GET", "POST"]),
            trigger("LATEST", HttpAuth::Jwt, &["PUT"]),
        ];
        assert_eq!(rule(&all, None, "GET").0, HttpAuth::Anonymous);
        assert_eq!(rule(&all, None, "POST").0, HttpAuth::Key, "the open trigger does not take it");
        assert_eq!(rule(&all, None, "PUT").2, Some("LATEST-Jwt".to_owned()));
        let (auth, methods, _) = rule(&all, None, "DELETE");
        assert_eq!((auth, methods.len()), (HttpAuth::Key, 4), "who may not call is not told which methods there are");
    }
}
