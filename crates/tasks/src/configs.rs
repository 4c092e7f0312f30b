//! What is kept for functions and their qualifiers: asked for, changed, taken away.

use std::sync::PoisonError;

use kip_store::tasks::TaskStore;

use crate::config::{AsyncConfig, Configs};
use crate::error::Error;
use crate::service::{Tasks, parse_configs};

pub(crate) async fn load(store: &dyn TaskStore) -> Result<Configs, Error> {
    Ok(parse_configs(store.configs().await?))
}

impl Tasks {
    /// What is kept for a function and a qualifier; none if nothing is.
    pub fn config(&self, function: &str, qualifier: &str) -> Option<AsyncConfig> {
        let configs = self.shared.configs.read().unwrap_or_else(PoisonError::into_inner);
        configs.get(&(function.to_owned(), qualifier.to_owned())).cloned()
    }

    /// All that is kept: function, qualifier, configuration.
    pub fn configs(&self) -> Vec<(String, String, AsyncConfig)> {
        let configs = self.shared.configs.read().unwrap_or_else(PoisonError::into_inner);
        configs
            .iter()
            .map(|((function, qualifier), config)| (function.clone(), qualifier.clone(), config.clone()))
            .collect()
    }

    /// Keeps a configuration for tasks that come in from now on; none takes it away.
    ///
    /// # Errors
    /// [`Error::Config`] or [`Error::Control`].
    pub async fn put_config(&self, function: &str, qualifier: &str, config: Option<AsyncConfig>) -> Result<(), Error> {
        self.shared.control.require(function)?;
        if let Some(config) = &config {
            config.check().map_err(Error::Config)?;
        }
        let text = config.as_ref().map(|config| serde_json::to_string(config).unwrap_or_default());
        self.shared.store.put_config(function.to_owned(), qualifier.to_owned(), text).await?;
        let mut configs = self.shared.configs.write().unwrap_or_else(PoisonError::into_inner);
        let key = (function.to_owned(), qualifier.to_owned());
        match config {
            Some(config) => drop(configs.insert(key, config)),
            None => drop(configs.remove(&key)),
        }
        Ok(())
    }
}
