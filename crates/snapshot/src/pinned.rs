//! Whether the large files that a version needs are as they were.

use std::path::Path;

use kip_spec::snapshot::PinnedFile;

use crate::walk::Stamp;

/// The first file that is not as it was pinned: another size, time or file. Looks at names only, never into files.
pub fn changed<'a>(folder: &Path, pinned: &'a [PinnedFile]) -> Option<&'a PinnedFile> {
    pinned.iter().find(|file| {
        let about = folder.join(&file.path).metadata().map(|about| Stamp::of(&about));
        !about.is_ok_and(|now| (now.size, now.modified_ns, now.inode) == (file.size, file.modified_ns, file.inode))
    })
}
