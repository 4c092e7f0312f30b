//! What facades keep of functions beside their declarations: words of their own, triggers, settings.

use std::sync::Arc;

use kip_spec::function::{HttpAuth, HttpTrigger};
use kip_spec::{FunctionName, VersionId};
use kip_store::{Author, Change, Effect, Object, RevisionExtra, StoredResource, StoredSetting, StoredTrigger};

use crate::cell::Cell;
use crate::control::Control;
use crate::error::Error;

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
    /// Who may call it over HTTP, where a trigger says so and not the declaration of its version.
    pub fn http_trigger(&self) -> Option<Arc<HttpTrigger>> {
        self.http.read().clone()
    }

    /// Whether callers over HTTP need a key.
    pub fn http_auth(&self) -> HttpAuth {
        self.http_trigger().map_or_else(|| self.serving().spec.http.auth, |http| http.auth)
    }

    /// Puts what a trigger says in the place of the declarations of its versions; none takes it away.
    pub fn set_http_trigger(&self, http: Option<HttpTrigger>) {
        *self.http.write() = http.map(Arc::new);
    }
}
