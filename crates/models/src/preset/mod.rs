//! Presets: what is known about engines that serve models, as data. A preset is expanded once, into the text of a declaration, and what
//! becomes of the preset later changes no version. Pure.

mod apps;
mod choose;
mod expand;
mod fields;
mod shipped;

pub use apps::App;
pub use choose::{Choice, Preference, choose};
pub use expand::{Expansion, expand};
pub use fields::{Call, Engine, Format, Load, Memory, Preset, PresetEvidence, Question, Sleep};
pub use shipped::Presets;
