"""Serves a pipeline of `transformers` or `modelscope` over HTTP.

    python app.py --model FOLDER [--task TASK] [--name NAME] [--port PORT]

| path | method | |
|---|---|---|
| `/`, `/invoke` | POST | `{"input": …, "parameters": {…}}`; the answer is `{"Code": 200, "Data": …, "RequestId": …, "Success": true}` |
| `/call` | POST | the same request; the answer is the output alone |
| `/describe` | GET | task, library, the fields of `input`, and a sample |
| `/health` | GET | 200 |

`input` is a value, or an object with the fields of the task. Pictures and sounds are base64 or data URLs; addresses are read only
with `PIPELINE_URLS=1` in the environment. `{"inputs": …}` is the form of Hugging Face: the answer is the output alone.
Only the standard library is needed beside the pipeline's own packages.
"""

import argparse
import base64
import binascii
import http.server
import io
import json
import math
import os
import pathlib
import signal
import sys
import threading
import time
import urllib.request
import uuid

LARGEST_BODY = 64 << 20
LARGEST_DOWNLOAD = 32 << 20

PICTURES = ("image", "images", "img", "mask", "picture", "reference", "content", "style", "template", "user", "face")
SOUNDS = ("audio", "wav", "sound", "video")

#: The fields of `input` by task, with a sample. Tasks that are not here take what their pipeline takes.
FIELDS = {
    "text-classification": {"text": "I like this."},
    "sentiment-analysis": {"text": "I like this."},
    "token-classification": {"text": "Ada Lovelace lived in London."},
    "ner": {"text": "Ada Lovelace lived in London."},
    "fill-mask": {"text": "Paris is the [MASK] of France."},
    "text-generation": {"text": "Once upon a time"},
    "text2text-generation": {"text": "translate English to German: good morning"},
    "summarization": {"text": "A long text."},
    "translation": {"text": "good morning"},
    "feature-extraction": {"text": "hello"},
    "zero-shot-classification": {"sequences": "I need a plumber.", "candidate_labels": ["home", "travel"]},
    "question-answering": {"question": "Where is it?", "context": "It is in the cellar."},
    "table-question-answering": {"query": "how many?", "table": {"count": ["3"]}},
    "image-classification": {"image": None},
    "image-segmentation": {"image": None},
    "object-detection": {"image": None},
    "depth-estimation": {"image": None},
    "image-feature-extraction": {"image": None},
    "image-to-text": {"image": None},
    "image-to-image": {"image": None},
    "zero-shot-image-classification": {"image": None, "candidate_labels": ["a cat", "a dog"]},
    "visual-question-answering": {"image": None, "question": "What is it?"},
    "document-question-answering": {"image": None, "question": "What is the total?"},
    "automatic-speech-recognition": {"audio": None},
    "audio-classification": {"audio": None},
    # Tasks of ModelScope.
    "text-ranking": {"source_sentence": ["how?"], "sentences_to_compare": ["so", "thus"]},
    "sentence-similarity": {"source_text": "one", "target_text": "another"},
    "sentence-embedding": {"source_sentence": ["hello"]},
    "nli": {"text": "It rains.", "text2": "It is wet."},
    "word-segmentation": {"text": "今天天气不错"},
    "named-entity-recognition": {"text": "Ada Lovelace lived in London."},
}

#: A transparent picture of one point, for samples.
POINT = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)

#: Ends of the names of architectures, and their tasks.
ARCHITECTURES = (
    ("ForSequenceClassification", "text-classification"),
    ("ForTokenClassification", "token-classification"),
    ("ForQuestionAnswering", "question-answering"),
    ("ForMaskedLM", "fill-mask"),
    ("ForCausalLM", "text-generation"),
    ("LMHeadModel", "text-generation"),
    ("ForImageClassification", "image-classification"),
    ("ForObjectDetection", "object-detection"),
    ("ForSemanticSegmentation", "image-segmentation"),
    ("ForUniversalSegmentation", "image-segmentation"),
    ("ForDepthEstimation", "depth-estimation"),
    ("ForCTC", "automatic-speech-recognition"),
    ("ForSpeechSeq2Seq", "automatic-speech-recognition"),
    ("ForAudioClassification", "audio-classification"),
)


class Refused(Exception):
    """A request that cannot be answered, with its status."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


def read_json(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def find_task(folder):
    """The task of a folder: what its files say, or what its architecture is for."""
    task = read_json(folder / "configuration.json").get("task")
    if task:
        return task
    readme = folder / "README.md"
    if readme.is_file():
        head = readme.read_text(encoding="utf-8", errors="replace")[:8192].split("---")
        for line in head[1].splitlines() if len(head) > 2 else []:
            key, _, value = line.partition(":")
            if key.strip() == "pipeline_tag" and value.strip():
                return value.strip().strip("'\"")
    for name in read_json(folder / "config.json").get("architectures") or []:
        for end, task in ARCHITECTURES:
            if name.endswith(end):
                return task
    raise SystemExit(f"app: no file of {folder} names the task of the model; give --task")


def find_library(folder):
    """`modelscope` for models whose configuration names a pipeline of ModelScope, else `transformers`."""
    configuration = read_json(folder / "configuration.json")
    if configuration.get("pipeline") or not (folder / "config.json").is_file():
        return "modelscope"
    return "transformers"


def load(library, task, folder):
    """The pipeline, on the first GPU if there is one."""
    try:
        import torch

        on_gpu = torch.cuda.is_available()
    except ImportError:
        on_gpu = False
    if library == "modelscope":
        from modelscope.pipelines import pipeline

        return pipeline(task=task, model=str(folder), device="gpu" if on_gpu else "cpu")
    from transformers import pipeline

    return pipeline(task=task, model=str(folder), device=0 if on_gpu else -1)


def content(value, field):
    """The bytes of a picture or sound."""
    if not isinstance(value, str):
        raise Refused(400, f"`{field}` must be base64")
    if value.startswith(("http://", "https://")):
        if os.environ.get("PIPELINE_URLS") != "1":
            message = f"`{field}` is an address; set PIPELINE_URLS=1 in the environment of the function to read addresses"
            raise Refused(400, message)
        try:
            with urllib.request.urlopen(value, timeout=30) as answer:
                data = answer.read(LARGEST_DOWNLOAD + 1)
        except OSError as error:
            raise Refused(400, f"`{field}` cannot be read: {error}") from error
        if len(data) > LARGEST_DOWNLOAD:
            raise Refused(413, f"`{field}` has more than {LARGEST_DOWNLOAD} bytes")
        return data
    text = value.partition(",")[2] if value.startswith("data:") else value
    text = "".join(text.split()).replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(400, f"`{field}` is not base64: {error}") from error


def decoded(field, value):
    """A field of `input` as pipelines take it."""
    if field in PICTURES and isinstance(value, str):
        from PIL import Image

        try:
            picture = Image.open(io.BytesIO(content(value, field)))
            picture.load()
        except Refused:
            raise
        except Exception as error:
            raise Refused(400, f"`{field}` is not a picture: {error}") from error
        return picture.convert("RGB")
    if field in SOUNDS and isinstance(value, str):
        return content(value, field)
    return value


def encoded(value):
    """An output as JSON: pictures and bytes as base64, arrays as lists."""
    if isinstance(value, float) and not math.isfinite(value):
        # JSON has no form for it.
        return None
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, dict):
        return {str(key): encoded(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [encoded(inner) for inner in value]
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    if hasattr(value, "save") and hasattr(value, "convert"):
        buffer = io.BytesIO()
        value.save(buffer, format="PNG")
        return base64.b64encode(buffer.getvalue()).decode()
    for name in ("tolist", "item"):
        if hasattr(value, name):
            return encoded(getattr(value.detach() if hasattr(value, "detach") else value, name)())
    if hasattr(value, "__dict__"):
        return encoded(vars(value))
    return str(value)


def picture_of_array(key, value):
    """ModelScope gives pictures as arrays with blue first."""
    if key not in ("output_img", "output_imgs") or value is None:
        return value
    if isinstance(value, (list, tuple)):
        return [picture_of_array("output_img", inner) for inner in value]
    if getattr(value, "ndim", 0) not in (2, 3):
        return value
    from PIL import Image

    array = value.clip(0, 255).astype("uint8")
    return Image.fromarray(array[..., 2::-1] if array.ndim == 3 and array.shape[2] >= 3 else array.squeeze())


class Served:
    """The model. Pipelines are not made for several threads, so one request runs at a time."""

    def __init__(self, options):
        self.folder = pathlib.Path(options.model).resolve()
        if not self.folder.is_dir():
            raise SystemExit(f"app: there is no folder {self.folder}")
        self.name = options.name or self.folder.name
        self.task = find_task(self.folder) if options.task in ("", "auto") else options.task
        self.library = find_library(self.folder) if options.library == "auto" else options.library
        self.lock = threading.Lock()
        self.requests = 0
        self.changed = threading.Condition()
        began = time.monotonic()
        self.pipeline = load(self.library, self.task, self.folder)
        seconds = time.monotonic() - began
        print(f"app: {self.name} is loaded: {self.task} of {self.library}, {seconds:.1f} s", flush=True)

    def count(self, change):
        with self.changed:
            self.requests += change
            self.changed.notify_all()

    def finish(self, seconds):
        """Waits for the requests at work."""
        with self.changed:
            self.changed.wait_for(lambda: self.requests == 0, seconds)

    def describe(self):
        fields = FIELDS.get(self.task, {"text": "hello"})
        sample = {key: POINT if value is None else value for key, value in fields.items()}
        mask = getattr(getattr(self.pipeline, "tokenizer", None), "mask_token", None)
        if mask and isinstance(sample.get("text"), str):
            sample["text"] = sample["text"].replace("[MASK]", mask)
        kinds = {key: "string (base64)" if value is None else type(value).__name__ for key, value in fields.items()}
        return {
            "name": self.name,
            "task": self.task,
            "library": self.library,
            "schema": {"input": kinds},
            "sample": {"input": sample, "parameters": {}},
            # Whether the sample means something to the model.
            "askable": self.task in FIELDS and None not in fields.values(),
        }

    def call(self, given, parameters):
        if not isinstance(parameters, dict):
            raise Refused(400, "`parameters` is not an object")
        if isinstance(given, dict):
            fields = {key: decoded(key, value) for key, value in given.items()}
        else:
            # A value without a name is the first field of the task.
            first = next(iter(FIELDS.get(self.task, {"text": ""})))
            fields = {first: decoded(first, given)}
        if not fields:
            raise Refused(400, "`input` is empty")
        with self.lock:
            try:
                output = self.run(fields, parameters)
            except (TypeError, ValueError, KeyError) as error:
                # What pipelines say of inputs that they do not take.
                raise Refused(400, f"{type(error).__name__}: {error}") from error
        if isinstance(output, dict):
            output = {key: picture_of_array(key, value) for key, value in output.items()}
        return encoded(output)

    def run(self, fields, parameters):
        single = len(fields) == 1
        if self.library == "modelscope":
            return self.pipeline(next(iter(fields.values())) if single else fields, **parameters)
        if single:
            return self.pipeline(next(iter(fields.values())), **parameters)
        return self.pipeline(**fields, **parameters)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served = None
    #: Seconds without a byte from the caller.
    timeout = 300

    def log_message(self, format, *arguments):
        pass

    def answer(self, status, value):
        body = json.dumps(value, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path == "/health":
            self.answer(200, {"status": "ok"})
        elif path in ("/", "/describe", "/schemas"):
            self.answer(200, self.served.describe())
        else:
            self.answer(404, {"error": f"there is nothing at {path}"})

    def read_body(self):
        length = self.headers.get("content-length")
        if length is None or not length.isdigit():
            self.close_connection = True
            raise Refused(411, "a Content-Length is needed")
        if int(length) > LARGEST_BODY:
            self.close_connection = True
            raise Refused(413, f"the body has more than {LARGEST_BODY} bytes")
        try:
            body = json.loads(self.rfile.read(int(length)) or b"{}")
        except ValueError as error:
            raise Refused(400, f"the body is not JSON: {error}") from error
        if not isinstance(body, dict) or not ("input" in body or "inputs" in body):
            raise Refused(400, "the body is not an object with `input`; GET /describe shows a sample")
        return body

    def do_POST(self):
        self.served.count(1)
        try:
            self.post()
        finally:
            self.served.count(-1)

    def post(self):
        path = self.path.partition("?")[0]
        identifier = self.headers.get("x-fc-request-id") or self.headers.get("x-kip-request-id") or uuid.uuid4().hex
        bare = path == "/call"
        try:
            body = self.read_body()
            if path not in ("/", "/invoke", "/call"):
                raise Refused(404, f"there is nothing at {path}")
            bare = bare or "inputs" in body
            output = self.served.call(body.get("input", body.get("inputs")), body.get("parameters") or {})
            status, message = 200, ""
        except Refused as refused:
            status, message, output = refused.status, str(refused), ""
        except Exception as error:  # noqa: BLE001 - whatever a model does, the caller gets an answer
            print(f"app: {identifier}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            status, message, output = 500, f"{type(error).__name__}: {error}", ""
        if bare:
            self.answer(status, output if status == 200 else {"error": message, "RequestId": identifier})
            return
        envelope = {"Code": status, "Message": message, "Data": output, "RequestId": identifier}
        self.answer(status, envelope | {"Success": status == 200})


def main():
    parser = argparse.ArgumentParser(description="Serves a pipeline of transformers or modelscope.")
    parser.add_argument("--model", required=True, help="the folder of the model")
    parser.add_argument("--task", default="auto", help="the task; by default what the files of the model say")
    parser.add_argument("--library", default="auto", choices=("auto", "transformers", "modelscope"))
    parser.add_argument("--name", default="", help="the name of the model")
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "9000")))
    options = parser.parse_args()
    Handler.served = Served(options)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", options.port), Handler)

    def stop(*_):
        # Not in the thread that serves: it would wait for itself.
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    server.serve_forever(poll_interval=0.2)
    Handler.served.finish(seconds=3600)
    # Threads of idle connections are left behind.
    os._exit(0)


if __name__ == "__main__":
    main()
