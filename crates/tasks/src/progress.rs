//! What functions say of their progress: to an address that stands in the head of their request, with a token in it that
//! only we can make.

use kip_host::clock::wall_millis;
use kip_store::tasks::TaskNumber;

use crate::error::Error;
use crate::shared::{Shared, Tasks};
use crate::sign::{equal, hexadecimal, hmac};

/// Characters of a word about progress that are kept.
const MOST: usize = 1_024;

pub(crate) fn token(shared: &Shared, number: TaskNumber, epoch: u32) -> String {
    let text = format!("progress {} {epoch}", number.0);
    hexadecimal(&hmac(&shared.options.secret, text.as_bytes())[..16])
}

/// Where a run reports its progress.
pub(crate) fn address(shared: &Shared, number: TaskNumber, epoch: u32) -> Option<String> {
    let base = shared.address.get()?;
    Some(format!("{base}/api/v1/progress/{}/{epoch}/{}", number.0, token(shared, number, epoch)))
}

impl Tasks {
    /// Whether a token is that of a run; asked before anything of its report is read.
    ///
    /// # Errors
    /// [`Error::Unknown`] for a token that we did not make.
    pub fn check_progress(&self, number: TaskNumber, epoch: u32, said: &str) -> Result<(), Error> {
        if equal(token(&self.shared, number, epoch).as_bytes(), said.as_bytes()) {
            return Ok(());
        }
        Err(Error::Unknown { function: "?".to_owned(), id: format!("t{}", number.0) })
    }

    /// Takes what a run says of its progress.
    ///
    /// # Errors
    /// [`Error::Unknown`] for a token that we did not make, [`Error::Stale`] if another run has taken over.
    pub async fn note_progress(&self, number: TaskNumber, epoch: u32, said: &str, text: &str) -> Result<(), Error> {
        self.check_progress(number, epoch, said)?;
        {
            let runs = self.shared.runs.lock();
            let run = runs.get(&number).filter(|run| run.epoch == epoch);
            if let Some(link) = run.and_then(|run| run.link.as_ref()) {
                // A sign of life, as a byte of an answer would be.
                link.sign();
            }
        }
        let text: String = text.chars().filter(|c| !c.is_control()).take(MOST).collect();
        let shared = self.shared.clone();
        let unit = self.shared.commits.unit("progress of a task", move |store| async move {
            if !store.note_progress(number, epoch, wall_millis(), text).await? {
                return Err(Error::Stale);
            }
            shared.tell(number);
            Ok(())
        });
        unit.await
    }
}
