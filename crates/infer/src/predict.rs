//! `/predict`: a picture or JSON in, labels and scores out. For people, pages and first tries; programs that want
//! tensors use `/v2`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Response, StatusCode, header};
use http_body_util::Full;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::datatype::Datatype;
use crate::description::{Description, Dimension, Port};
use crate::error::Error;
use crate::http::State;
use crate::http::answer::json;
use crate::json::{Data, NestedData};
use crate::picture::{self, Format};
use crate::served::LoadedModel;
use crate::tensor::Tensor;
use crate::text::{Text, Tokens, best};

/// Bodies beyond this are read outside the loop that serves connections.
const LARGE: usize = 16 << 10;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireRequest {
    /// One instance.
    input: Option<InputLists>,
    /// Several.
    inputs: Option<InputLists>,
    /// A text or several, for models that take text.
    text: Option<TextInput>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "`text` is a text or a list of texts")]
enum TextInput {
    One(String),
    Several(Vec<String>),
}

/// What a body asks for.
enum Question {
    Tensors(PredictInput),
    Texts { tokens: Vec<Tokens>, single: bool },
}

/// Lists for the only input, or lists by the name of the input.
enum InputLists {
    List(Data),
    ByName(BTreeMap<String, Data>),
}

impl<'de> Deserialize<'de> for InputLists {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InputListsVisitor;
        impl<'de> Visitor<'de> for InputListsVisitor {
            type Value = InputLists;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list, or an object with a list for each input of the model")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<InputLists, A::Error> {
                Data::from_list(list).map(InputLists::List)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<InputLists, A::Error> {
                let mut given = BTreeMap::new();
                while let Some((name, data)) = map.next_entry()? {
                    given.insert(name, data);
                }
                Ok(InputLists::ByName(given))
            }
        }
        deserializer.deserialize_any(InputListsVisitor)
    }
}

/// What was asked: instances, each with its inputs in the model's order, and whether there was but one.
struct PredictInput {
    instances: Vec<Vec<Tensor>>,
    single: bool,
}

/// One instance's answer.
struct Prediction<'a> {
    served: &'a LoadedModel,
    outputs: &'a [Tensor],
    scores: Option<Vec<f32>>,
}

/// The answer to one text.
struct TextPrediction<'a> {
    /// Those of a classifier; without them, the row is a vector.
    labels: Option<&'a [String]>,
    row: &'a [f32],
    /// Whether the text was longer than the model takes.
    truncated: bool,
}

#[derive(Serialize)]
struct SingleAnswer<'a, P> {
    #[serde(flatten)]
    prediction: P,
    model: &'a str,
    runtime: &'static str,
}

#[derive(Serialize)]
struct BatchAnswer<'a, P> {
    predictions: Vec<P>,
    model: &'a str,
    runtime: &'static str,
}

/// Answers a request.
pub(crate) async fn predict(state: &Arc<State>, head: &Parts, body: Bytes) -> Result<Response<Full<Bytes>>, Error> {
    let kind = head.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let is_picture = Format::of(&body).is_some() || kind.starts_with("image/");
    if kind.starts_with("multipart/") {
        return Err(Error::Unreadable {
            message: "forms are not read here".to_owned(),
            hint: Some("send the picture as the whole body: curl --data-binary @picture.png"),
        });
    }
    let is_large = body.len() > LARGE || is_picture;
    let shared = Arc::clone(state);
    let read = move || match is_picture {
        true => read_picture(&shared, &body).map(Question::Tensors),
        false => read_json(&shared.served, &body),
    };
    let asked = if is_large { state.aside(read).await? } else { read()? };
    let served = &state.served;
    let asked = match asked {
        Question::Tensors(asked) => asked,
        Question::Texts { tokens, single } => return texts(served, tokens, single).await,
    };
    let outputs = run(served, asked.instances).await?;
    let mut predictions = outputs.iter().map(|outputs| prediction(served, outputs)).collect::<Result<Vec<_>, _>>()?;
    let (model, runtime) = (served.name.as_str(), served.runtime);
    Ok(match (asked.single, predictions.pop()) {
        (true, Some(prediction)) => json(StatusCode::OK, &SingleAnswer { prediction, model, runtime }),
        (_, last) => {
            predictions.extend(last);
            json(StatusCode::OK, &BatchAnswer { predictions, model, runtime })
        }
    })
}

fn read_picture(state: &State, body: &Bytes) -> Result<PredictInput, Error> {
    let served = &state.served;
    let Some(form) = &served.card.picture else {
        return Err(Error::Unreadable {
            message: "this model takes no pictures".to_owned(),
            hint: Some("a model that does has `picture` in its model.json: docs/infer.md"),
        });
    };
    let format = Format::of(body)
        .ok_or_else(|| Error::unreadable("the picture is neither PNG nor JPEG, which are the formats read here"))?;
    let raster = picture::decode(body, format, state.max_pixels)?;
    let tensor = picture::prepare(raster, form, served.description.inputs[0].datatype)?;
    Ok(PredictInput { instances: vec![vec![tensor]], single: true })
}

/// Answers with labels or vectors of texts.
async fn texts(served: &LoadedModel, tokens: Vec<Tokens>, single: bool) -> Result<Response<Full<Bytes>>, Error> {
    let text = served.text()?;
    let output = served.run_texts(tokens).await?;
    let (model, runtime) = (served.name.as_str(), served.runtime);
    let predictions = output.rows.iter().enumerate().map(|(place, row)| TextPrediction {
        labels: text.labels(),
        row,
        truncated: output.truncated.contains(&place),
    });
    let mut predictions: Vec<TextPrediction<'_>> = predictions.collect();
    Ok(match predictions.pop() {
        Some(prediction) if single => json(StatusCode::OK, &SingleAnswer { prediction, model, runtime }),
        last => {
            predictions.extend(last);
            json(StatusCode::OK, &BatchAnswer { predictions, model, runtime })
        }
    })
}

fn read_json(served: &LoadedModel, body: &Bytes) -> Result<Question, Error> {
    let bare = body.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|byte| *byte != b'{');
    if bare {
        return Err(Error::Unreadable {
            message: "the body is not an object with `input` (one instance) or `inputs` (several)".to_owned(),
            hint: Some("for example {\"inputs\": [[0, 1, 2]]}; GET /model lists shapes and datatypes"),
        });
    }
    let request: WireRequest = serde_json::from_slice(body).map_err(|error| Error::unreadable_json(&error))?;
    let (given, single) = match (request.input, request.inputs, request.text) {
        (Some(input), None, None) => (input, true),
        (None, Some(inputs), None) => (inputs, false),
        (None, None, Some(text)) => {
            let (texts, single) = match text {
                TextInput::One(text) => (vec![Text::Words(text)], true),
                TextInput::Several(texts) => (texts.into_iter().map(Text::Words).collect(), false),
            };
            return Ok(Question::Texts { tokens: served.text()?.tokenize(&texts, true)?, single });
        }
        _ => {
            return Err(Error::Unreadable {
                message: "exactly one of `input` (one instance), `inputs` (several) and `text` is needed".to_owned(),
                hint: Some("for example {\"inputs\": [[0, 1, 2]]}; GET /model lists shapes and datatypes"),
            });
        }
    };
    let description = &served.description;
    let mut by_name = match given {
        InputLists::List(data) if description.inputs.len() == 1 => {
            BTreeMap::from([(description.inputs[0].name.clone(), data)])
        }
        InputLists::List(_) => {
            let names: Vec<&str> = description.inputs.iter().map(|port| port.name.as_str()).collect();
            let text = format!("the model has several inputs: give an object with {}", names.join(", "));
            return Err(Error::Shape(text));
        }
        InputLists::ByName(by_name) => by_name,
    };
    let with_rows = has_rows(description);
    let mut columns = Vec::new();
    for port in &description.inputs {
        let data =
            by_name.remove(&port.name).ok_or_else(|| Error::Shape(format!("input `{}` is missing", port.name)))?;
        columns.push(instances(port, data, single, with_rows)?);
    }
    if let Some(unknown) = by_name.keys().next() {
        return Err(Error::Shape(format!("the model has no input `{unknown}`")));
    }
    let count = columns.first().map_or(0, Vec::len);
    if columns.iter().any(|column| column.len() != count) {
        return Err(Error::Shape("the inputs are given for different numbers of instances".to_owned()));
    }
    let mut columns: Vec<_> = columns.into_iter().map(Vec::into_iter).collect();
    let instances = (0..count).map(|_| columns.iter_mut().filter_map(Iterator::next).collect()).collect();
    Ok(Question::Tensors(PredictInput { instances, single }))
}

/// Whether every input begins with a dimension of rows: free and shared, or 1.
fn has_rows(description: &Description) -> bool {
    let one = |port: &Port| port.shape.len() > 1 && port.shape.first() == Some(&Dimension::Fixed(1));
    description.has_rows || description.inputs.iter().all(one)
}

/// The tensors of one input, one for each instance. An instance may be given flat.
fn instances(port: &Port, data: Data, single: bool, with_rows: bool) -> Result<Vec<Tensor>, Error> {
    let name = &port.name;
    let lists = data.shape().map(<[usize]>::to_vec);
    let lists = lists.ok_or_else(|| Error::Shape(format!("the lists of input `{name}` are of different lengths")))?;
    let dimensions = if with_rows { &port.shape[1..] } else { &port.shape[..] };
    let fixed: Option<Vec<usize>> = dimensions.iter().map(Dimension::fixed).collect();
    let (count, inner) = match lists.split_first() {
        _ if single => (1, lists.as_slice()),
        Some((count, inner)) => (*count, inner),
        None => return Err(Error::Shape(format!("`inputs` of `{name}` must be a list of instances"))),
    };
    if count == 0 {
        return Err(Error::Shape("`inputs` is empty".to_owned()));
    }
    let flat = |fixed: &Vec<usize>| inner.len() == 1 && fixed.iter().product::<usize>() == inner[0];
    let own = match &fixed {
        Some(fixed) if flat(fixed) => fixed.clone(),
        _ => inner.to_vec(),
    };
    let mut shape = vec![count];
    shape.extend(&own);
    let joined = data.flattened().into_tensor(name, port.datatype, shape)?;
    let parts = joined.part(&vec![1; count]).unwrap_or_default();
    Ok(if with_rows { parts } else { parts.iter().map(Tensor::without_first_dimension).collect() })
}

/// Runs the instances, as one request where the model has a batch dimension, and answers the outputs of each.
async fn run(served: &LoadedModel, instances: Vec<Vec<Tensor>>) -> Result<Vec<Vec<Tensor>>, Error> {
    if !served.description.batches || instances.len() == 1 {
        let mut answers = Vec::with_capacity(instances.len());
        for instance in instances {
            answers.push(served.run(instance).await?);
        }
        return Ok(answers);
    }
    let count = instances.len();
    let width = served.description.inputs.len();
    let joined: Option<Vec<Tensor>> = (0..width)
        .map(|index| Tensor::join(&instances.iter().filter_map(|instance| instance.get(index)).collect::<Vec<_>>()))
        .collect();
    let joined = joined.ok_or_else(|| Error::Shape("the instances are of different shapes".to_owned()))?;
    let outputs = served.run(joined).await?;
    let parted: Option<Vec<Vec<Tensor>>> = outputs.iter().map(|output| output.part(&vec![1; count])).collect();
    let parted = parted.ok_or_else(|| {
        Error::Inference("its outputs have not one row for each input; set `batch` to false in model.json".to_owned())
    })?;
    let mut columns: Vec<_> = parted.into_iter().map(Vec::into_iter).collect();
    Ok((0..count).map(|_| columns.iter_mut().filter_map(Iterator::next).collect()).collect())
}

fn prediction<'a>(served: &'a LoadedModel, outputs: &'a [Tensor]) -> Result<Prediction<'a>, Error> {
    let Some(output) = served.score_output().and_then(|index| outputs.get(index)) else {
        return Ok(Prediction { served, outputs, scores: None });
    };
    let activation = served.card.output.as_ref().map(|output| output.activation).unwrap_or_default();
    let scores = activation.apply(output.to_floats());
    let labels = served.card.labels.len();
    if labels != 0 && labels != scores.len() {
        let text = format!("it gave {} scores, but model.json has {labels} labels", scores.len());
        return Err(Error::Inference(text));
    }
    Ok(Prediction { served, outputs, scores: Some(scores) })
}

impl Prediction<'_> {
    /// The label that the model itself gives, which need not be the one with the highest score.
    fn chosen(&self) -> Option<String> {
        let tensor = self.outputs.get(self.served.label_output?)?;
        if tensor.datatype() == Datatype::Bytes {
            return tensor.strings().next().map(|label| String::from_utf8_lossy(label).into_owned());
        }
        tensor.elements::<i64>().next().map(|label| label.to_string())
    }
}

impl Serialize for Prediction<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let labels = &self.served.card.labels;
        match &self.scores {
            Some(scores) if !labels.is_empty() => {
                let label = self.chosen().or_else(|| best(labels, scores).cloned());
                map.serialize_entry("label", &label)?;
                map.serialize_entry("scores", &Scores(labels, scores))?;
            }
            Some(scores) => map.serialize_entry("scores", scores)?,
            None => {
                let ports = &self.served.description.outputs;
                let outputs: BTreeMap<&str, NestedData<'_>> =
                    ports.iter().map(|port| port.name.as_str()).zip(self.outputs.iter().map(NestedData)).collect();
                map.serialize_entry("outputs", &outputs)?;
            }
        }
        map.end()
    }
}

impl Serialize for TextPrediction<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self.labels {
            Some(labels) => {
                map.serialize_entry("label", &best(labels, self.row))?;
                map.serialize_entry("scores", &Scores(labels, self.row))?;
            }
            None => map.serialize_entry("embedding", self.row)?,
        }
        if self.truncated {
            map.serialize_entry("truncated", &true)?;
        }
        map.end()
    }
}

/// Scores by label, in the order of the labels.
struct Scores<'a>(&'a [String], &'a [f32]);

impl Serialize for Scores<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().zip(self.1))
    }
}
