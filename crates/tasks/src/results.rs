//! How much of results is kept: by function, by tenant and in all. A result that does not fit is not kept, and its task says so; the run
//! counts as it ended.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::config::Options;

/// Bytes of results on the disk. What retention takes away is seen when all are counted again.
#[derive(Debug, Default)]
pub(crate) struct KeptResults(Mutex<ResultBytes>);

#[derive(Debug, Default)]
struct ResultBytes {
    overall: u64,
    by_function: BTreeMap<Arc<str>, u64>,
    by_tenant: BTreeMap<Arc<str>, u64>,
}

impl ResultBytes {
    fn add(&mut self, function: Arc<str>, tenant: Arc<str>, bytes: u64) {
        self.overall += bytes;
        *self.by_function.entry(function).or_default() += bytes;
        *self.by_tenant.entry(tenant).or_default() += bytes;
    }
}

impl KeptResults {
    /// Takes room for a result.
    ///
    /// # Errors
    /// The setting whose limit is reached.
    pub(crate) fn take(
        &self,
        (function, tenant): (&Arc<str>, &Arc<str>),
        bytes: u64,
        options: &Options,
    ) -> Result<(), &'static str> {
        let mut kept = self.0.lock();
        let of = |map: &BTreeMap<Arc<str>, u64>, name: &Arc<str>| map.get(name).copied().unwrap_or_default();
        for (now, limit, setting) in [
            (of(&kept.by_function, function), options.function_results, "tasks.function_results"),
            (of(&kept.by_tenant, tenant), options.tenant_results, "tasks.tenant_results"),
            (kept.overall, options.results, "tasks.results"),
        ] {
            if now.saturating_add(bytes) > limit {
                return Err(setting);
            }
        }
        kept.add(function.clone(), tenant.clone(), bytes);
        Ok(())
    }

    /// What the disk has.
    pub(crate) fn count_again(&self, all: Vec<(String, String, u64)>) {
        let mut kept = ResultBytes::default();
        all.into_iter().for_each(|(function, tenant, bytes)| kept.add(function.into(), tenant.into(), bytes));
        *self.0.lock() = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_bounded_by_function_by_tenant_and_in_all() {
        let options = Options { function_results: 100, tenant_results: 150, results: 220, ..Options::default() };
        let kept = KeptResults::default();
        let take = |function: &str, tenant: &str, bytes| kept.take((&function.into(), &tenant.into()), bytes, &options);
        assert_eq!(take("f", "a", 100), Ok(()));
        assert_eq!(take("f", "b", 1), Err("tasks.function_results"));
        assert_eq!(take("g", "a", 51), Err("tasks.tenant_results"));
        assert_eq!(take("g", "a", 50), Ok(()));
        assert_eq!(take("h", "b", 71), Err("tasks.results"));
        assert_eq!(take("h", "b", 70), Ok(()));
        kept.count_again(vec![("f".to_owned(), "a".to_owned(), 10)]);
        assert_eq!(take("f", "a", 90), Ok(()), "what retention took away is room again");
    }
}
