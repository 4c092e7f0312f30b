//! What facades keep of functions beside their declarations: words of their own, triggers, settings.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use kip_fleet::Event;
use kip_spec::function::HttpAuth;
use kip_spec::{FunctionName, VersionId};
use kip_store::{Author, Change, Effect, Object, RevisionExtra, StoredResource, StoredSetting, StoredTrigger};

use crate::cell::Cell;
use crate::control::Control;
use crate::error::Error;
use crate::http_triggers::HttpTriggers;

impl Control {
    /// The names of all functions, sorted.
    pub fn function_names(&self) -> Vec<FunctionName> {
        let mut names: Vec<FunctionName> = self.shared.cells().by_name.keys().cloned().collect();
        names.sort();
        names
    }

    /// What a facade keeps of a revision.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn extra(&self, revision: VersionId) -> Result<Option<RevisionExtra>, Error> {
        Ok(self.shared.changes.read().extra(revision).await?)
    }

    /// The digests of the code that revisions run.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn codes(&self) -> Result<Vec<String>, Error> {
        Ok(self.shared.changes.read().codes().await?)
    }

    /// The triggers of a function, by name; of all functions without one.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn triggers(&self, function: Option<FunctionName>) -> Result<Vec<StoredTrigger>, Error> {
        Ok(self.shared.changes.read().triggers(function).await?)
    }

    /// The settings of a kind, by function and qualifier; of all functions without one.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn settings(
        &self,
        kind: &'static str,
        function: Option<FunctionName>,
    ) -> Result<Vec<StoredSetting>, Error> {
        Ok(self.shared.changes.read().settings(kind, function).await?)
    }

    /// The custom domains that hold at the gateway.
    pub fn domains(&self) -> &crate::domains::Domains {
        &self.shared.domains
    }

    /// The resources of a kind, by name.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn resources(&self, kind: &'static str) -> Result<Vec<StoredResource>, Error> {
        Ok(self.shared.changes.read().resources(kind).await?)
    }

    /// Stores a resource that belongs to no function, or removes one. False if there was nothing to change.
    ///
    /// # Errors
    /// [`Error::Store`], also where the resource has another revision than the author read.
    pub async fn change_resource(&self, object: Object, change: Change, author: Author) -> Result<bool, Error> {
        let unit = self.shared.changes.unit(move |turn| async move {
            let committed = turn.commit(author.proposal(object, change)).await?;
            Ok(committed.effect != Effect::Nothing)
        });
        unit.await
    }

    /// Stores a trigger or a setting of a function, or removes one. False if there was nothing to change.
    ///
    /// # Errors
    /// [`Error::NoFunction`] or [`Error::Store`].
    pub async fn change_kept(
        &self,
        function: &str,
        object: Object,
        change: Change,
        author: Author,
    ) -> Result<bool, Error> {
        let (control, function) = (self.clone(), function.to_owned());
        let unit = self.shared.changes.unit(move |turn| async move {
            control.require(&function)?;
            let committed = turn.commit(author.proposal(object, change)).await?;
            Ok(committed.effect != Effect::Nothing)
        });
        unit.await
    }
}

impl Cell {
    /// Who may call it over HTTP, where triggers say so and not the declaration of its version.
    pub fn http_triggers(&self) -> Option<Arc<HttpTriggers>> {
        self.http.read().clone()
    }

    /// Whether somebody without a key or a token may call it, by some qualifier.
    pub fn is_open(&self) -> bool {
        let declared = || self.serving().spec.http.auth == HttpAuth::Anonymous;
        self.http_triggers().map_or_else(declared, |triggers| triggers.is_open())
    }

    /// Whether some qualifier is called with a key or a token only. Triggers open the qualifiers that they name and no others.
    pub fn is_guarded(&self) -> bool {
        self.http.read().is_some() || self.serving().spec.http.auth != HttpAuth::Anonymous
    }

    /// Whether it has an alias of this name.
    pub fn has_alias(&self, name: &str) -> bool {
        self.lock().qualifiers().is_some_and(|named| named.alias(name).is_some())
    }

    /// Puts what triggers say in the place of the declarations of its versions; none takes it away.
    pub fn set_http_triggers(&self, triggers: Option<HttpTriggers>) {
        *self.http.write() = triggers.map(Arc::new);
    }

    /// Whether it takes no invocations.
    pub fn is_disabled(&self) -> bool {
        self.disabled.load(Ordering::Acquire)
    }

    /// Takes invocations no more, or again.
    pub fn set_disabled(&self, disabled: bool) {
        self.disabled.store(disabled, Ordering::Release);
    }

    /// Refuses work for a function that takes none.
    ///
    /// # Errors
    /// A problem with code KW-3031.
    pub fn require_enabled(&self) -> Result<(), Error> {
        if self.is_disabled() { Err(Error::Disabled { function: self.name().to_string() }) } else { Ok(()) }
    }

    /// Ends the requests that it has now: those that wait are refused, and instances that work are ended by force.
    pub fn abort(self: &Arc<Self>) {
        self.step(Event::Abort);
    }
}
