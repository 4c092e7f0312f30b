//! tmp
pub mod book;
pub mod rules;
