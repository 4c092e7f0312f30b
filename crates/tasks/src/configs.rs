//! What is kept for functions and their qualifiers: asked for, changed, taken away.

use crate::config::{AsyncConfig, LATEST};
use crate::destination_rules::DestinationRules;
use crate::error::Error;
use crate::shared::{Shared, Tasks};

impl Tasks {
    /// What is kept for a function and a qualifier; none if nothing is.
    pub fn config(&self, function: &str, qualifier: &str) -> Option<AsyncConfig> {
        let configs = self.shared.configs.read();
        configs.get(&(function.to_owned(), qualifier.to_owned())).cloned()
    }

    /// All that is kept: function, qualifier, configuration.
    pub fn configs(&self) -> Vec<(String, String, AsyncConfig)> {
        let configs = self.shared.configs.read();
        configs
            .iter()
            .map(|((function, qualifier), config)| (function.clone(), qualifier.clone(), config.clone()))
            .collect()
    }

    /// Where destinations may be.
    pub fn destination_rules(&self) -> &DestinationRules {
        &self.shared.options.destinations
    }

    /// Keeps a configuration for tasks that come in from now on; none takes it away.
    ///
    /// # Errors
    /// [`Error::Config`] or [`Error::Control`].
    pub async fn put_config(&self, function: &str, qualifier: &str, config: Option<AsyncConfig>) -> Result<(), Error> {
        let cell = self.shared.control.require(function)?;
        let mut qualifier = qualifier.to_owned();
        if let Some(config) = &config {
            // What is taken away may be of a version or an alias that is gone.
            qualifier = self.shared.control.task_qualifier(&cell, &qualifier).await?;
            config.check().map_err(Error::Config)?;
            self.shared.leads_nowhere_twice(function, config).map_err(Error::Config)?;
        }
        let (shared, key) = (self.shared.clone(), (function.to_owned(), qualifier));
        let unit = self.shared.commits.ordered("configuration", move |store| async move {
            let text = config.as_ref().map(|config| serde_json::to_string(config).unwrap_or_default());
            store.put_config(key.0.clone(), key.1.clone(), text).await?;
            let mut configs = shared.configs.write();
            match config {
                Some(config) => drop(configs.insert(key, config)),
                None => drop(configs.remove(&key)),
            }
            Ok(())
        });
        unit.await
    }
}

impl Shared {
    /// Whether each function that is told exists, and none leads back to where it began: such tasks would never end.
    fn leads_nowhere_twice(&self, function: &str, config: &AsyncConfig) -> Result<(), String> {
        let mut seen = Vec::new();
        let mut next: Vec<String> = config.destination_config.functions().collect();
        if let Some(missing) = next.iter().find(|name| self.control.cell(name).is_none()) {
            return Err(format!("function `{missing}`, which is to be told, does not exist"));
        }
        while let Some(name) = next.pop() {
            if name == function {
                let by = if seen.is_empty() { String::new() } else { format!(" by way of {}", seen.join(" and ")) };
                return Err(format!("its tasks would lead to `{function}` again{by}, without an end"));
            }
            if !seen.contains(&name) {
                next.extend(self.config(&name, LATEST).destination_config.functions());
                seen.push(name);
            }
        }
        Ok(())
    }
}
