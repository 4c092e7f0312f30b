//! Why something could not be done, as values until an edge renders them.

use kip_spec::{Code, Problem, code};

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error("the change is not stored")]
    Store(#[from] kip_store::Error),
    /// There is no such function.
    #[error("there is no function `{name}`")]
    NoFunction {
        /// The name asked for.
        name: String,
        /// One that is nearly the same.
        nearest: Option<String>,
    },
    /// Two names differ in case only, and host names know no case.
    #[error("there is a function `{existing}` already; names must differ in more than case, because host names do")]
    NameCase {
        /// The name asked for.
        name: String,
        /// The name there is.
        existing: String,
    },
    /// The function has nobody of this name.
    #[error("the function `{function}` has no version or alias `{qualifier}`")]
    NoQualifier {
        /// The function.
        function: String,
        /// The name asked for.
        qualifier: String,
    },
    /// A job has no versions to choose from.
    #[error("the job `{function}` runs what was deployed last, and not `{qualifier}`")]
    OnlyLatest {
        /// The function.
        function: String,
        /// The qualifier asked for.
        qualifier: String,
    },
    /// A version is in use.
    #[error("version {number} of the function `{function}` is in use by {}", users.join(", "))]
    VersionInUse {
        /// The function.
        function: String,
        /// The version.
        number: u64,
        /// What uses it.
        users: Vec<String>,
    },
    /// An alias is in use.
    #[error("the alias `{alias}` of the function `{function}` is in use by {}", users.join(", "))]
    AliasInUse {
        /// The function.
        function: String,
        /// The alias.
        alias: String,
        /// What uses it.
        users: Vec<String>,
    },
    /// The alias moves by a rollout.
    #[error("a rollout of the alias `{alias}` of the function `{function}` is under way")]
    RolloutOpen {
        /// The function.
        function: String,
        /// The alias.
        alias: String,
    },
    /// A plan cannot be used.
    #[error("{detail}")]
    RolloutInvalid {
        /// What is wrong.
        detail: String,
    },
    /// No rollout of the alias is under way.
    #[error("no rollout of the alias `{alias}` of the function `{function}` is under way")]
    NoRollout {
        /// The function.
        function: String,
        /// The alias.
        alias: String,
    },
    /// The function has no alias of this name.
    #[error("the function `{function}` has no alias `{alias}`")]
    NoAlias {
        /// The function.
        function: String,
        /// The name asked for.
        alias: String,
    },
    /// An alias, its note or the traffic of a function cannot be so.
    #[error("{detail}")]
    AliasInvalid {
        /// What is wrong.
        detail: String,
        /// What to write.
        hint: String,
    },
    /// Two things would have the same host name.
    #[error("`{name}` would have the host name of `{existing}`")]
    HostNameTaken {
        /// What was to be made.
        name: String,
        /// What has the host name.
        existing: String,
    },
    /// The newest revision is known not to start.
    #[error("the newest revision of the function `{function}`, {revision}, did not become ready")]
    RevisionNotReady {
        /// The function.
        function: String,
        /// The newest revision, as it is shown.
        revision: String,
        /// The one that serves.
        serving: String,
    },
    /// There is nothing to return to.
    #[error("nothing is known of before: {what}")]
    NothingBefore {
        /// Of what.
        what: String,
    },
    /// Nothing is provisioned.
    #[error("nothing is provisioned for `{qualifier}` of the function `{function}`")]
    NoProvision {
        /// The function.
        function: String,
        /// For whom.
        qualifier: String,
    },
    /// A share or its folder cannot be so.
    #[error("{detail}")]
    ShareInvalid {
        /// What is wrong.
        detail: String,
        /// What to do.
        hint: &'static str,
    },
    /// A role cannot be mapped so.
    #[error("{detail}")]
    RoleInvalid {
        /// What is wrong.
        detail: String,
    },
    /// A budget cannot be so.
    #[error("{detail}")]
    BudgetInvalid {
        /// What is wrong.
        detail: String,
    },
    /// There is no such budget.
    #[error("there is no budget for the {kind} `{name}`")]
    NoBudget {
        /// `function` or `key`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// What is provisioned was not put, so that it cannot be taken away.
    #[error("what is provisioned for `{function}` was not put: its manifest declares it")]
    Declared {
        /// The function.
        function: String,
    },
    /// It was disabled.
    #[error("function '{function}' takes no invocations: it is disabled")]
    Disabled {
        /// The function.
        function: String,
    },
    /// The server ends.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The access log cannot be written.
    #[error("the access log cannot be opened")]
    AccessLog(#[source] std::io::Error),
}

impl Error {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Store(error) => store_code(error),
            Self::NoFunction { .. } => code::FUNCTION_NOT_FOUND,
            Self::NameCase { .. } => code::FUNCTION_NAME_CASE,
            Self::NoQualifier { .. } | Self::OnlyLatest { .. } => code::VERSION_NOT_FOUND,
            Self::VersionInUse { .. } | Self::AliasInUse { .. } => code::VERSION_IN_USE,
            Self::NothingBefore { .. } => code::NOTHING_BEFORE,
            Self::NoAlias { .. } => code::ALIAS_NOT_FOUND,
            Self::RolloutOpen { .. } => code::ROLLOUT_OPEN,
            Self::RolloutInvalid { .. } => code::ROLLOUT_INVALID,
            Self::NoRollout { .. } => code::NO_ROLLOUT,
            Self::AliasInvalid { .. } => code::ALIAS_INVALID,
            Self::HostNameTaken { .. } => code::HOST_NAME_TAKEN,
            Self::RevisionNotReady { .. } => code::REVISION_NOT_READY,
            Self::NoProvision { .. } | Self::Declared { .. } => code::NO_PROVISION,
            Self::ShareInvalid { .. } => code::SHARE_INVALID,
            Self::RoleInvalid { .. } => code::ROLE_MAP_INVALID,
            Self::BudgetInvalid { .. } => code::BUDGET_INVALID,
            Self::NoBudget { .. } => code::NO_BUDGET,
            Self::Disabled { .. } => code::INVOCATION_DISABLED,
            Self::ShuttingDown => code::SHUTTING_DOWN,
            Self::AccessLog(_) => code::CONFIG_INVALID,
        }
    }
}

/// The code of a store's failure.
pub(crate) fn store_code(error: &kip_store::Error) -> Code {
    match error {
        kip_store::Error::Full { .. } => code::STORE_FULL,
        kip_store::Error::NotDurable { .. } => code::STORE_NOT_DURABLE,
        kip_store::Error::Stale { .. } => code::STALE,
        _ => code::STORE_FAILED,
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let problem = Self::new(error.code(), error.to_string());
        match &error {
            Error::Store(source @ kip_store::Error::Full { .. }) => problem
                .cause(source.to_string())
                .hint("make room on the disk of the data directory; changes are taken again by themselves"),
            Error::Store(source @ kip_store::Error::NotDurable { .. }) => problem
                .cause(source.to_string())
                .hint("look at the disk (dmesg), then start the server again; functions go on serving until then"),
            Error::Store(source @ kip_store::Error::Stale { .. }) => problem
                .cause(source.to_string())
                .hint("read it again and decide anew; without If-Match the last change wins"),
            Error::Store(source) => {
                problem.cause(source.to_string()).hint("look at the disk of the data directory: kip doctor")
            }
            Error::NoFunction { nearest: Some(nearest), .. } => {
                problem.hint(format!("did you mean `{nearest}`? `kip ls` lists all"))
            }
            Error::NoFunction { .. } => problem.hint("`kip ls` lists the functions there are"),
            Error::NameCase { .. } => problem.hint("choose another name"),
            Error::NoQualifier { function, .. } => problem.hint(format!(
                "`kip version ls {function}` lists versions and revisions, `kip alias ls {function}` aliases; LATEST is the version that serves"
            )),
            Error::OnlyLatest { .. } => problem
                .hint("leave the qualifier out, or write LATEST"),
            Error::VersionInUse { function, users, .. } => problem.hint(match users.iter().any(|user| user.starts_with("alias")) {
                true => format!("point the alias elsewhere first: kip alias set {function} NAME VERSION"),
                false => format!("change what uses it first; `kip inspect {function}` shows traffic, `kip provision ls` provisioned instances, `kip task ls {function}` tasks"),
            }),
            Error::AliasInUse { function, .. } => problem.hint(format!(
                "change what uses it first: the function's traffic in kip.yaml, or `kip provision rm {function} --qualifier ALIAS`; `kip task ls {function}` lists tasks"
            )),
            Error::NothingBefore { .. } => problem
                .hint("a rollback needs an earlier version that served, or an alias that was moved; name a version: kip alias set"),
            Error::RolloutOpen { function, alias } => problem.hint(format!(
                "wait for it (kip rollout status {function} {alias}), or end it: kip rollout promote or kip rollout abort"
            )),
            Error::RolloutInvalid { .. } => problem.hint("for example: --steps 10,30,60,100 --every 5m"),
            Error::NoRollout { function, alias } => {
                problem.hint(format!("start one: kip rollout start {function} {alias} --to VERSION"))
            }
            Error::NoAlias { function, .. } => problem.hint(format!("`kip alias ls {function}` lists them")),
            Error::AliasInvalid { hint, .. } => problem.hint(hint.clone()),
            Error::HostNameTaken { .. } => problem
                .cause("a function and a qualifier are one label of a host name, FUNCTION--QUALIFIER, and host names know no case")
                .hint("choose another name"),
            Error::RevisionNotReady { function, serving, .. } => problem.hint(format!(
                "`kip why {function}` says why; publish the revision that serves instead: kip version publish {function} --revision {serving}"
            )),
            Error::ShareInvalid { hint, .. } => problem.hint(*hint),
            Error::RoleInvalid { .. } => {
                problem.hint("set the secrets NAME.id and NAME.secret (kip secret set NAME.id), then --role-map ROLE=NAME")
            }
            Error::BudgetInvalid { .. } => problem.hint("write an amount above 0 such as 12.50"),
            Error::NoBudget { .. } => problem.hint("`kip budget ls` shows the budgets"),
            Error::NoProvision { .. } => problem.hint("`kip provision ls` shows what is"),
            Error::Declared { function } => problem.hint(format!(
                "change scaling.provision in kip.yaml and deploy it, or put something else over it: `kip provision set {function} --target 0`"
            )),
            Error::Disabled { .. } => {
                problem.hint("EnableFunctionInvocation takes it back into service; `kip audit` says who disabled it")
            }
            Error::ShuttingDown => problem,
            Error::AccessLog(source) => problem
                .cause(source.to_string())
                .hint("gateway.access_log in kipwake.toml names a file that the server may write to, stderr, or off"),
        }
    }
}
