//! The one table of who may do what. Every door asks it: the gateway, the API, tasks and destinations. Pure: the key and what is wanted
//! come in, nothing or a refusal goes out, and time is handed in.
//!
//! What a key may not see is decided before anybody looks whether it exists, so a refusal tells nothing about that.

use std::sync::Arc;

use kip_spec::limiter::{Allowance, LimitExceeded, Slot};
use kip_spec::tenant::TenantScope;
use kip_spec::{Problem, code};
use kip_wire::Role;

use crate::key::{DEFAULT_TENANT, Key};

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// What a caller wants to do, and with what.
#[derive(Debug, Clone, Copy)]
pub struct Access<'a> {
    /// The least role that it needs.
    pub role: Role,
    /// The function that it is about; a model is the function of its name. None if it is about none, or about all that the key sees.
    pub function: Option<&'a str>,
}

impl<'a> Access<'a> {
    /// A call of a function, or of the model of that name.
    pub fn call(function: &'a str) -> Self {
        Self { role: Role::Invoke, function: Some(function) }
    }
}

/// Why a key may not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Its role is too low.
    Role {
        /// The key.
        key: Arc<str>,
        /// The role that it has.
        has: Role,
        /// The role that is needed.
        needs: Role,
    },
    /// It is for other functions. Whether this one exists is not said.
    Function {
        /// The key.
        key: Arc<str>,
        /// The function that was named.
        function: String,
        /// The functions that it is for.
        only: Vec<String>,
    },
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Role { key, has, needs } => {
                let said = format!("this needs a key with the role {needs}; the key `{key}` has the role {has}");
                Self::new(code::ROLE_TOO_LOW, said).hint(format!(
                    "use another key (--key, KIPWAKE_KEY), or have one made: kip key create NAME --role {needs}"
                ))
            }
            Refusal::Function { key, function, mut only } => {
                let said = format!("the key `{key}` is not for the function `{function}`");
                only.push(function);
                let list = only.join(",");
                Self::new(code::KEY_OTHER_FUNCTION, said)
                    .hint(format!("an administrator can add it: kip key set {key} --functions {list}"))
            }
        }
    }
}

/// A limit of a key that is used up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitRefusal {
    /// `rate` or `concurrency`, as metrics name it.
    pub limit: &'static str,
    /// What the caller is told.
    pub problem: Problem,
}

impl Key {
    /// Whether it may do this. The one place where roles and functions are compared.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn allows(&self, access: Access<'_>) -> Result<(), Refusal> {
        if self.role() < access.role {
            return Err(Refusal::Role { key: self.name().clone(), has: self.role(), needs: access.role });
        }
        match access.function {
            Some(function) if !self.sees(function) => Err(Refusal::Function {
                key: self.name().clone(),
                function: function.to_owned(),
                only: self.only().unwrap_or_default(),
            }),
            _ => Ok(()),
        }
    }

    /// Whether it may know of this function.
    pub fn sees(&self, function: &str) -> bool {
        self.stored.functions.as_ref().is_none_or(|functions| functions.contains(function))
    }

    /// The functions that it sees, if it does not see all. An empty list is none.
    pub fn only(&self) -> Option<Vec<String>> {
        let functions = self.stored.functions.as_ref()?;
        Some(functions.iter().map(ToString::to_string).collect())
    }

    /// The tenants whose tasks, requests and counts it sees: all for administrators and for operators without a tenant of their own.
    /// `named` is the tenant that the caller asks for.
    pub fn tenants(&self, named: Option<&str>) -> TenantScope {
        let (own, role) = (self.tenant(), self.role());
        let sees_all = role >= Role::Admin || (role >= Role::Operate && **own == *DEFAULT_TENANT);
        match named {
            Some(named) if sees_all || *named == **own => TenantScope::One(Arc::from(named)),
            Some(_) => TenantScope::None,
            None if sees_all => TenantScope::All,
            None => TenantScope::One(own.clone()),
        }
    }

    /// Takes a place for one request within its rate and its number in flight; none where it has no limits. `now` gives the nanoseconds
    /// of a clock that never goes back, and is asked only where there are limits. Work is counted so at each door, the reading of what became of it is not.
    ///
    /// # Errors
    /// [`LimitRefusal`]; what is refused costs the key nothing.
    pub fn admit(&self, now: impl FnOnce() -> u64) -> Result<Option<Slot>, LimitRefusal> {
        let allowance = Allowance {
            rate: self.rate().map(|(rate, burst)| (rate.interval(), burst)),
            concurrency: self.concurrency(),
        };
        if allowance == Allowance::default() {
            return Ok(None);
        }
        self.live.limiter.admit(allowance, now()).map(Some).map_err(|exceeded| self.over_the_limit(exceeded))
    }

    fn over_the_limit(&self, exceeded: LimitExceeded) -> LimitRefusal {
        let name = self.name();
        let (limit, code, said, seconds) = match exceeded {
            LimitExceeded::Rate { wait } => {
                let rate =
                    self.rate().map(|(rate, burst)| format!("{rate} with bursts of {burst}")).unwrap_or_default();
                let said = format!("the key `{name}` sends more than it may: {rate}");
                ("rate", code::KEY_RATE, said, wait.div_ceil(SECOND).max(1))
            }
            LimitExceeded::Concurrency => {
                let most = self.concurrency().unwrap_or_default();
                let said = format!("the key `{name}` has {most} requests in flight, as many as it may");
                ("concurrency", code::KEY_CONCURRENCY, said, 1)
            }
        };
        let hint = format!("try again later; an administrator can change the limit: kip key set {name}");
        let problem = Problem { retry_after: Some(seconds), ..Problem::new(code, said).hint(hint) };
        LimitRefusal { limit, problem }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kip_store::StoredKey;

    use super::*;
    use crate::key::Live;

    fn key(role: Role, functions: Option<&[&str]>, tenant: &str) -> Key {
        let mut stored = StoredKey::new("k", [0; 32], 0, role.name(), tenant);
        stored.functions = functions.map(|names| names.iter().map(|name| name.parse().unwrap()).collect());
        Key::new(stored, Live::default())
    }

    #[test]
    fn roles_and_functions_are_crossed() {
        let lists: [Option<&[&str]>; 3] = [None, Some(&[]), Some(&["a"])];
        for has in Role::ALL {
            for needs in Role::ALL {
                for list in lists {
                    for function in [None, Some("a"), Some("b"), Some("")] {
                        let answer = key(has, list, DEFAULT_TENANT).allows(Access { role: needs, function });
                        let seen = function.is_none_or(|name| list.is_none_or(|list| list.contains(&name)));
                        let expected = match () {
                            () if has < needs => Err(code::ROLE_TOO_LOW),
                            () if !seen => Err(code::KEY_OTHER_FUNCTION),
                            () => Ok(()),
                        };
                        let answer = answer.map_err(|refusal| Problem::from(refusal).code);
                        assert_eq!(answer, expected, "{has} {needs} {list:?} {function:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn an_empty_list_is_no_function_and_no_list_is_all() {
        assert_eq!(key(Role::Deploy, None, "t").only(), None);
        let none = key(Role::Deploy, Some(&[]), "t");
        assert_eq!(none.only(), Some(Vec::new()));
        assert!(!none.sees("a") && none.stored.functions == Some(BTreeSet::new()));
    }

    #[test]
    fn a_tenant_is_a_boundary_below_the_operators_of_the_server() {
        let own = |name: &str| TenantScope::One(Arc::from(name));
        for (role, tenant, all) in [
            (Role::Invoke, DEFAULT_TENANT, false),
            (Role::Operate, DEFAULT_TENANT, true),
            (Role::Operate, "red", false),
            (Role::Deploy, "red", false),
            (Role::Deploy, DEFAULT_TENANT, true),
            (Role::Admin, "red", true),
        ] {
            let key = key(role, None, tenant);
            assert_eq!(key.tenants(None), if all { TenantScope::All } else { own(tenant) }, "{role} {tenant}");
            assert_eq!(key.tenants(Some("blue")), if all { own("blue") } else { TenantScope::None }, "{role} {tenant}");
            assert_eq!(key.tenants(Some(tenant)), own(tenant));
        }
    }

    #[test]
    fn a_limit_names_itself_and_the_time_to_wait() {
        let mut stored = StoredKey::new("k", [0; 32], 0, "invoke", "t");
        (stored.rate, stored.burst, stored.concurrency) = (Some("1/h".parse().unwrap()), Some(2), Some(1));
        let key = Key::new(stored, Live::default());
        let first = key.admit(|| 0).unwrap();
        let refused = key.admit(|| 0).unwrap_err();
        assert_eq!((refused.limit, refused.problem.code), ("concurrency", code::KEY_CONCURRENCY));
        drop(first);
        drop(key.admit(|| 0).unwrap());
        let refused = key.admit(|| SECOND).unwrap_err();
        assert_eq!((refused.limit, refused.problem.code), ("rate", code::KEY_RATE));
        assert_eq!(refused.problem.retry_after, Some(3_599));
        // Changed meanwhile, it is the same key with the same count.
        let mut looser = key.stored.clone();
        looser.burst = Some(3);
        assert!(Key::new(looser, key.live).admit(|| SECOND).is_ok());
        assert!(super::tests::key(Role::Invoke, None, "t").admit(|| 0).unwrap().is_none(), "no limits, no place");
    }
}
