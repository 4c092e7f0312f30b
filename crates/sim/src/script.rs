//! placeholder
#[derive(Debug)]
/// x
pub struct ScriptError;
/// x
pub fn play(_: &str) -> Result<String, ScriptError> { Err(ScriptError) }
