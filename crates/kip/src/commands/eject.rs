//! `kip model eject`: the app of a preset as files of one's own, with a kip.yaml that runs it.

use std::path::{Path, PathBuf};

use kip_models::preset::App;
use kip_spec::{Problem, code};
use kip_wire::VersionInfo;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::client::{Client, segment};
use crate::output::Output;

/// What was written.
#[derive(Debug, Serialize)]
struct Ejected {
    function: String,
    folder: PathBuf,
    files: Vec<&'static str>,
}

pub(crate) async fn run(client: &Client, function: &str, folder: &Path, output: Output) -> anyhow::Result<()> {
    let path = format!("/api/v1/functions/{}/versions/LATEST", segment(function));
    let version: VersionInfo = client.get(&path).await?;
    let (app, document) = parts(function, &version.revision.source)?;
    let content = match App::of_file(&app) {
        Some((_, Some(same))) => same.text.to_owned(),
        // Of another release: the server's file is the one that runs.
        _ => std::fs::read_to_string(&app).map_err(|error| {
            Problem::new(
                code::EJECT,
                format!("the app of `{function}` is of another release, and its file cannot be read"),
            )
            .cause(format!("{}: {error}", app.display()))
            .hint("run the command on the host of the server")
        })?,
    };
    let failed = |path: &Path, error: &std::io::Error| {
        Problem::new(code::EJECT, format!("{} cannot be written", path.display())).cause(error.to_string())
    };
    if std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
        let message = format!("the folder {} is not empty", folder.display());
        return Err(Problem::new(code::EJECT, message).hint("name a folder that is empty or not there yet").into());
    }
    std::fs::create_dir_all(folder).map_err(|error| failed(folder, &error))?;
    let comment = format!(
        "# Written by `kip model eject {function}`. The model stays where it is: in the cache of the server, or in its folder.\n"
    );
    let text = comment + &serde_saphyr::to_string(&document).unwrap_or_default();
    for (name, text) in [("app.py", &content), ("kip.yaml", &text)] {
        let file = folder.join(name);
        std::fs::write(&file, text).map_err(|error| failed(&file, &error))?;
    }
    let ejected =
        Ejected { function: function.to_owned(), folder: folder.to_owned(), files: vec!["app.py", "kip.yaml"] };
    output.result(&ejected, |ejected| {
        let shown = ejected.folder.display();
        format!("Ejected   {shown}/app.py, {shown}/kip.yaml\nNext      edit app.py, then `kip up {shown}`\n")
    })
}

/// The file of the app, and the declaration with the app in its own folder.
fn parts(function: &str, source: &str) -> Result<(PathBuf, Value), Problem> {
    let odd = || {
        Problem::new(code::EJECT, format!("`{function}` does not run an app of a preset"))
            .hint("only functions that `kip up MODEL --preset pipeline` made have an app that can be ejected")
    };
    let is_made = source.starts_with("# Made by preset ");
    let json = source.split_once('\n').filter(|_| is_made).map(|(_, json)| json).ok_or_else(odd)?;
    let mut document: Value = serde_json::from_str(json).map_err(|_| odd())?;
    let declared = document.pointer_mut(&format!("/functions/{function}")).and_then(Value::as_object_mut);
    let declared: &mut Map<String, Value> = declared.ok_or_else(odd)?;
    let words = declared.get_mut("run").and_then(Value::as_array_mut).ok_or_else(odd)?;
    let is_app = |word: &&mut Value| word.as_str().is_some_and(|word| App::of_file(Path::new(word)).is_some());
    let word = words.iter_mut().find(is_app).ok_or_else(odd)?;
    let app = PathBuf::from(word.as_str().unwrap_or_default());
    *word = json!("app.py");
    declared.remove("dir");
    Ok((app, document))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_functions_with_an_app_are_ejected() {
        let file = App::find("pipeline").unwrap().file_name();
        let source = |run: &str| {
            format!(
                "# Made by preset pipeline (0) for hf:a/b\n{{\"api\": \"kip/v1\", \"functions\": {{\"tiny\": {{\"dir\": \"/m\", \"run\": [\"python\", \"{run}\", \"--model\", \"/m\"]}}}}}}"
            )
        };
        let (app, document) = parts("tiny", &source(&format!("/apps/{file}"))).unwrap();
        assert_eq!(app, Path::new("/apps").join(file));
        let tiny = &document["functions"]["tiny"];
        assert_eq!((tiny["run"][1].as_str(), tiny.get("dir")), (Some("app.py"), None));
        for other in [source("/apps/server.py"), "functions: {tiny: {run: [x]}}".to_owned()] {
            assert_eq!(parts("tiny", &other).unwrap_err().code, code::EJECT, "{other}");
        }
    }
}
