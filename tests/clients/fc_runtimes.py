"""Handlers of Python and Node by the official Python SDK. Arguments: the API's address, access-key id, secret, and `node` if it is there."""

import base64
import io
import json
import sys
import urllib.error
import urllib.request
import zipfile

from alibabacloud_fc20230330 import models as m
from alibabacloud_fc20230330.client import Client
from alibabacloud_tea_openapi.utils_models import Config
from darabonba.runtime import RuntimeOptions

address, access_id, secret = sys.argv[1:4]
client = Client(Config(access_key_id=access_id, access_key_secret=secret, protocol="http", endpoint=address))

PYTHON = """
import json
READY = []

def begin(context):
    READY.append(context.function.name)

def handler(event, context):
    if event == b"fail":
        raise ValueError("no luck")
    if event == b"bytes":
        return bytes(range(256))
    return json.dumps({"event": event.decode(), "ready": READY, "id": context.request_id})

def web(environ, start_response):
    body = environ["wsgi.input"].read()
    start_response("201 Created", [("x-own", environ["fc.context"].function.name)])
    return [environ["REQUEST_METHOD"].encode(), b" ", environ["fc.request_uri"].encode(), b" ", body]
"""

NODE = """
let ready = 0;
exports.begin = (context, callback) => { ready += 1; callback(null); };
exports.handler = (event, context, callback) => {
  const text = event.toString();
  if (text === "fail") throw new Error("no luck");
  if (text === "handled") return callback(new TypeError("told"));
  callback(null, JSON.stringify({ event: text, ready, id: context.requestId }));
};
exports.later = async (event, context) => {
  const asked = JSON.parse(event.toString());
  if (asked.version === "v1") {
    return { statusCode: 201, headers: { "x-own": "1" }, body: asked.requestContext.http.method + " " + asked.rawPath };
  }
  return Buffer.from("plain");
};
"""


def make(name, runtime, handler, files, initializer=None):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as out:
        for path, text in files.items():
            out.writestr(path, text)
    lifecycle = initializer and m.InstanceLifecycleConfig(initializer=m.LifecycleHook(handler=initializer, timeout=30))
    client.create_function(m.CreateFunctionRequest(body=m.CreateFunctionInput(
        function_name=name, runtime=runtime, handler=handler, timeout=30, instance_lifecycle_config=lifecycle,
        code=m.InputCodeLocation(zip_file=base64.b64encode(buffer.getvalue()).decode()))))


def invoke(name, body, **headers):
    request = m.InvokeFunctionRequest(body=io.BytesIO(body))
    answer = client.invoke_function_with_options(
        name, request, m.InvokeFunctionHeaders(**headers), RuntimeOptions(read_timeout=60000))
    return {key.lower(): value for key, value in answer.headers.items()}, answer.body.read()


def open_to_all(name):
    return client.create_trigger(name, m.CreateTriggerRequest(body=m.CreateTriggerInput(
        trigger_name="web", trigger_type="http",
        trigger_config=json.dumps({"authType": "anonymous", "methods": ["GET", "POST"]})))).body.http_trigger.url_internet


def check(name):
    headers, body = invoke(name, b"hi")
    told = json.loads(body)
    assert told["event"] == "hi" and told["id"] == headers["x-fc-request-id"], told
    headers, body = invoke(name, b"fail", x_fc_log_type="Tail")
    assert headers["x-fc-error-type"] == "UnhandledInvocationError", headers
    said = json.loads(body)
    assert said["errorMessage"] == "no luck" and said["stackTrace"], said
    log = base64.b64decode(headers["x-fc-log-result"]).decode()
    assert "FC Invoke Start RequestId: " + headers["x-fc-request-id"] in log and "no luck" in log, log
    return told


make("py", "python3", "pkg/index.handler", {"pkg/__init__.py": "", "pkg/index.py": PYTHON}, "pkg/index.begin")
assert check("py")["ready"] == ["py"], "the initializer ran once"
assert invoke("py", b"bytes")[1] == bytes(range(256))
make("wsgi", "python3", "index.web", {"index.py": PYTHON})
with urllib.request.urlopen(urllib.request.Request(open_to_all("wsgi") + "a/b?c=%20d", data=b"body"), timeout=60) as got:
    assert (got.status, got.headers["x-own"]) == (201, "wsgi"), got.headers
    assert got.read() == b"POST /a/b?c=%20d body"
make("broken", "python3", "absent.handler", {"index.py": PYTHON})
headers, body = invoke("broken", b"x")
assert headers["x-fc-error-type"] == "UnhandledInvocationError" and b"absent" in body, body

if len(sys.argv) > 4:
    make("js", "nodejs20", "src/index.handler", {"src/index.js": NODE}, "src/index.begin")
    assert check("js")["ready"] == 1, "the initializer ran once"
    headers, body = invoke("js", b"handled")
    assert headers["x-fc-error-type"] == "HandledInvocationError", headers
    assert json.loads(body)["errorType"] == "TypeError", body
    make("later", "nodejs20", "index.later", {"index.js": NODE})
    assert invoke("later", b"{}")[1] == b"plain"
    with urllib.request.urlopen(open_to_all("later") + "p/q", timeout=60) as got:
        assert (got.status, got.headers["x-own"], got.read()) == (201, "1", b"GET /p/q")
print("ok")
