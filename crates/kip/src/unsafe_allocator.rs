//! The allocator of the binary, and how it gives memory back that nobody uses any more.
#![expect(unsafe_code, reason = "the crate of the allocator has no call of its own for this one")]

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod allocator {
    unsafe extern "C" {
        /// Of mimalloc: frees what this thread keeps for later, and gives the system back what all threads have freed.
        pub(super) safe fn mi_collect(force: bool);
    }
}

/// Gives the system back what was freed. Takes some milliseconds.
pub(crate) fn give_back() {
    allocator::mi_collect(true);
}
