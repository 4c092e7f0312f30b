"""The official Python SDK of Function Compute against a Kipwake server. Arguments: the API's address, access-key id, secret, a Python."""

import base64
import io
import json
import sys
import time
import urllib.request
import zipfile

from alibabacloud_fc20230330 import models as m
from alibabacloud_fc20230330.client import Client
from alibabacloud_tea_openapi.utils_models import Config
from darabonba.runtime import RuntimeOptions

address, access_id, secret, python = sys.argv[1:5]


def client_of(key, value, **options):
    return Client(Config(access_key_id=key, access_key_secret=value, protocol="http", endpoint=address, **options))


client = client_of(access_id, secret)

PROGRAM = """
import json, os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.path == "/initialize":
            status, answer = 200, b""
        elif body == b"fail":
            status, answer = 500, b'{"errorMessage": "no"}'
        elif body == b"env":
            answer = json.dumps({"A": os.environ.get("A"), "release": RELEASE, "headers": dict(self.headers.items())}).encode()
            status = 200
        else:
            print("got", len(body), "bytes", flush=True)
            status, answer = 200, body[::-1]
        self.send_response(status)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
    do_GET = do_POST
    def log_message(self, *_): pass

HTTPServer(("127.0.0.1", int(os.environ["FC_SERVER_PORT"])), Handler).serve_forever()
"""


def archive(release):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as out:
        # The same bytes whenever it is made.
        entry = zipfile.ZipInfo("app.py", (2026, 1, 1, 0, 0, 0))
        out.writestr(entry, "RELEASE = %r\n%s" % (release, PROGRAM), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def code(release):
    return m.InputCodeLocation(zip_file=base64.b64encode(archive(release)).decode())


def refused(expected, status, work):
    try:
        work()
    except Exception as error:
        found = (getattr(error, "code", None), getattr(error, "status_code", getattr(error, "statusCode", None)))
        assert found == (expected, status), (found, error)
        return error
    raise AssertionError("not refused: %s" % expected)


def invoke(body, function="sdk", qualifier=None, **headers):
    options = RuntimeOptions(read_timeout=60000)
    request = m.InvokeFunctionRequest(body=io.BytesIO(body), qualifier=qualifier)
    answer = client.invoke_function_with_options(function, request, m.InvokeFunctionHeaders(**headers), options)
    return answer, answer.body.read() if answer.body is not None else b""


# Make, show, invoke.
created = client.create_function(m.CreateFunctionRequest(body=m.CreateFunctionInput(
    function_name="sdk",
    runtime="custom.debian10",
    handler="index.handler",
    description="from the SDK",
    code=code("one"),
    custom_runtime_config=m.CustomRuntimeConfig(command=[python, "app.py"], port=9000),
    environment_variables={"A": "${B} $x"},
    memory_size=512,
    cpu=0.35,
    disk_size=512,
    timeout=60,
    instance_concurrency=1,
    internet_access=True,
    instance_lifecycle_config=m.InstanceLifecycleConfig(
        initializer=m.LifecycleHook(handler="index.init", timeout=30)),
    vpc_config=m.VPCConfig(vpc_id="", v_switch_ids=[], security_group_id=""),
    log_config=m.LogConfig(project="p", logstore="l", enable_request_metrics=True),
    tags=[m.Tag(key="team", value="a")],
))).body
assert created.function_name == "sdk" and created.state == "Active", created
assert created.function_arn == "acs:fc:local:kipwake:functions/sdk", created
assert created.log_config.project == "p" and created.cpu == 0.35 and created.code_size > 0, created
shown = client.get_function("sdk", m.GetFunctionRequest()).body
assert shown.environment_variables == {"A": "${B} $x"} and shown.description == "from the SDK", shown
assert shown.code_checksum == created.code_checksum and shown.tags[0].key == "team", shown

answer, body = invoke(b"hello")
assert answer.status_code == 200 and body == b"olleh", (answer, body)
headers = {name.lower(): value for name, value in answer.headers.items()}
assert headers["x-fc-request-id"] and headers["x-fc-instance-id"], headers
assert headers["x-fc-code-checksum"] == created.code_checksum, headers
answer, body = invoke(b"env")
told = json.loads(body)
assert told["A"] == "${B} $x" and told["release"] == "one", told
seen = {name.lower(): value for name, value in told["headers"].items()}
assert seen["x-fc-function-name"] == "sdk" and seen["x-fc-control-path"] == "/invoke", seen
assert seen["x-fc-account-id"] == "kipwake" and seen["x-fc-function-timeout"] == "60", seen

# A failure of the function is an answer.
answer, body = invoke(b"fail")
headers = {name.lower(): value for name, value in answer.headers.items()}
assert headers["x-fc-error-type"] == "UnhandledInvocationError", headers
assert json.loads(body) == {"errorMessage": "no"}
answer, body = invoke(b"tail", x_fc_log_type="Tail")
headers = {name.lower(): value for name, value in answer.headers.items()}
assert b"got 4 bytes" in base64.b64decode(headers["x-fc-log-result"]) and body == b"liat", headers

# Asynchronously.
answer, body = invoke(b"later", x_fc_invocation_type="Async", x_fc_async_task_id="task-1")
assert answer.status_code == 202 and body == b"", answer
for _ in range(600):
    task = client.get_async_task("sdk", "task-1", m.GetAsyncTaskRequest()).body
    if task.status == "Succeeded":
        break
    time.sleep(0.05)
assert task.status == "Succeeded", task
tasks = client.list_async_tasks("sdk", m.ListAsyncTasksRequest(limit=10, status="Succeeded")).body.tasks
assert [one.task_id for one in tasks] == ["task-1"], tasks

# Change, and the code as it was sent.
changed = client.update_function("sdk", m.UpdateFunctionRequest(body=m.UpdateFunctionInput(
    code=code("two"), timeout=30, environment_variables={"A": "b"}))).body
assert changed.timeout == 30 and changed.memory_size == 512 and changed.code_checksum != created.code_checksum
for _ in range(600):
    told = json.loads(invoke(b"env")[1])
    if told["release"] == "two":
        break
    time.sleep(0.05)
assert told["A"] == "b", told
location = client.get_function_code("sdk", m.GetFunctionCodeRequest()).body
with urllib.request.urlopen(location.url) as fetched:
    assert fetched.read() == archive("two")
assert location.checksum == changed.code_checksum
refused("InvalidArgument", 400, lambda: client.update_function("sdk", m.UpdateFunctionRequest(
    body=m.UpdateFunctionInput(timeout=0))))

# Versions, and an alias with weights.
first = client.publish_function_version("sdk", m.PublishFunctionVersionRequest(
    body=m.PublishVersionInput(description="first"))).body
assert first.version_id == "1" and first.description == "first", first
client.update_function("sdk", m.UpdateFunctionRequest(body=m.UpdateFunctionInput(code=code("three"))))
for _ in range(600):
    if json.loads(invoke(b"env")[1])["release"] == "three":
        break
    time.sleep(0.05)
second = client.publish_function_version("sdk", m.PublishFunctionVersionRequest(body=m.PublishVersionInput())).body
assert second.version_id == "2", second
assert json.loads(invoke(b"env", qualifier="1")[1])["release"] == "two"
page = client.list_function_versions("sdk", m.ListFunctionVersionsRequest(limit=1)).body
assert [one.version_id for one in page.versions] == ["2"] and page.next_token, page
page = client.list_function_versions("sdk", m.ListFunctionVersionsRequest(limit=1, next_token=page.next_token)).body
assert [one.version_id for one in page.versions] == ["1"] and not page.next_token, page
alias = client.create_alias("sdk", m.CreateAliasRequest(body=m.CreateAliasInput(
    alias_name="prod", version_id="1", description="d", additional_version_weight={"2": 0.1}))).body
assert alias.version_id == "1" and alias.additional_version_weight == {"2": 0.1}, alias
assert client.get_alias("sdk", "prod").body.created_time, alias
moved = client.update_alias("sdk", "prod", m.UpdateAliasRequest(body=m.UpdateAliasInput(
    version_id="2", additional_version_weight={}))).body
assert moved.version_id == "2" and not moved.additional_version_weight and moved.description == "d", moved
assert json.loads(invoke(b"env", qualifier="prod")[1])["release"] == "three"
refused("AliasAlreadyExists", 409, lambda: client.create_alias("sdk", m.CreateAliasRequest(
    body=m.CreateAliasInput(alias_name="prod", version_id="1"))))
refused("AliasNotFound", 404, lambda: client.get_alias("sdk", "none"))
refused("VersionNotFound", 404, lambda: client.create_alias("sdk", m.CreateAliasRequest(
    body=m.CreateAliasInput(alias_name="x", version_id="9"))))
assert [one.alias_name for one in client.list_aliases("sdk", m.ListAliasesRequest()).body.aliases] == ["prod"]

# Triggers: without one nobody calls it without a key.
def fetch(url):
    try:
        with urllib.request.urlopen(url, timeout=60) as opened:
            return opened.status
    except urllib.error.HTTPError as error:
        return error.code


trigger = client.create_trigger("sdk", m.CreateTriggerRequest(body=m.CreateTriggerInput(
    trigger_name="web", trigger_type="http", qualifier="LATEST",
    trigger_config=json.dumps({"authType": "function", "methods": ["GET", "POST"]})))).body
url = trigger.http_trigger.url_internet
assert json.loads(trigger.trigger_config)["methods"] == ["GET", "POST"], trigger
assert fetch(url) == 401
client.update_trigger("sdk", "web", m.UpdateTriggerRequest(body=m.UpdateTriggerInput(
    trigger_config=json.dumps({"authType": "anonymous", "methods": ["GET"]}))))
assert fetch(url) == 200
timer = client.create_trigger("sdk", m.CreateTriggerRequest(body=m.CreateTriggerInput(
    trigger_name="tick", trigger_type="timer", qualifier="LATEST",
    trigger_config=json.dumps({"cronExpression": "@every 1s", "enable": True, "payload": "p"})))).body
assert timer.trigger_type == "timer", timer
for _ in range(600):
    fired = client.list_async_tasks("sdk", m.ListAsyncTasksRequest(prefix="timer-", status="Succeeded")).body.tasks
    if len(fired) >= 2:
        break
    time.sleep(0.05)
assert len({one.task_id for one in fired}) >= 2, fired
refused("TriggerAlreadyExists", 409, lambda: client.create_trigger("sdk", m.CreateTriggerRequest(
    body=m.CreateTriggerInput(trigger_name="web", trigger_type="http", trigger_config="{}"))))
refused("InvalidArgument", 400, lambda: client.create_trigger("sdk", m.CreateTriggerRequest(
    body=m.CreateTriggerInput(trigger_name="bad", trigger_type="timer", trigger_config='{"cronExpression": "x"}'))))
page = client.list_triggers("sdk", m.ListTriggersRequest(limit=1)).body
assert [one.trigger_name for one in page.triggers] == ["tick"] and page.next_token, page
client.delete_trigger("sdk", "tick")
client.delete_trigger("sdk", "web")
assert fetch(url) == 401
refused("TriggerNotFound", 404, lambda: client.get_trigger("sdk", "web"))

# Provisioned instances, scaling, concurrency, the asynchronous configuration.
put = client.put_provision_config("sdk", m.PutProvisionConfigRequest(qualifier="prod", body=m.PutProvisionConfigInput(
    default_target=1, always_allocate_cpu=False, always_allocate_gpu=False, target_tracking_policies=[m.TargetTrackingPolicy(
        name="t", start_time="2024-07-01T00:00:00Z", end_time="2024-07-30T00:00:00Z", metric_type="CPUUtilization",
        metric_target=0.3, min_capacity=1, max_capacity=2)]))).body
assert put.function_arn.endswith("functions/sdk/prod") and put.default_target == 1, put
for _ in range(600):
    now = client.get_provision_config("sdk", m.GetProvisionConfigRequest(qualifier="prod")).body
    if now.current == 1:
        break
    time.sleep(0.05)
assert now.current == 1 and now.target_tracking_policies[0].metric_target == 0.3, now
assert len(client.list_provision_configs(m.ListProvisionConfigsRequest(function_name="sdk")).body.provision_configs) == 1
client.delete_provision_config("sdk", m.DeleteProvisionConfigRequest(qualifier="prod"))
assert not client.get_provision_config("sdk", m.GetProvisionConfigRequest(qualifier="prod")).body.function_arn
client.put_scaling_config("sdk", m.PutScalingConfigRequest(qualifier="LATEST", body=m.PutScalingConfigInput(min_instances=1)))
assert client.get_scaling_config("sdk", m.GetScalingConfigRequest(qualifier="LATEST")).body.min_instances == 1
client.delete_scaling_config("sdk", m.DeleteScalingConfigRequest(qualifier="LATEST"))
refused("ScalingConfigNotFound", 404, lambda: client.get_scaling_config("sdk", m.GetScalingConfigRequest(qualifier="LATEST")))
kept = client.put_concurrency_config("sdk", m.PutConcurrencyConfigRequest(
    body=m.PutConcurrencyInput(reserved_concurrency=3))).body
assert kept.reserved_concurrency == 3, kept
assert client.get_concurrency_config("sdk").body.reserved_concurrency == 3
assert len(client.list_concurrency_configs(m.ListConcurrencyConfigsRequest()).body.configs) == 1
client.delete_concurrency_config("sdk")
kept = client.put_async_invoke_config("sdk", m.PutAsyncInvokeConfigRequest(body=m.PutAsyncInvokeConfigInput(
    async_task=True, max_async_retry_attempts=2, max_async_event_age_in_seconds=60,
    destination_config=m.DestinationConfig(on_failure=m.Destination(
        destination="acs:fc:cn-hangzhou:123:functions/digest"))))).body
assert kept.max_async_retry_attempts == 2 and kept.function_arn.endswith("/LATEST"), kept
shown = client.get_async_invoke_config("sdk", m.GetAsyncInvokeConfigRequest()).body
assert shown.destination_config.on_failure.destination == "acs:fc:cn-hangzhou:123:functions/digest", shown
refused("InvalidArgument", 400, lambda: client.put_async_invoke_config("sdk", m.PutAsyncInvokeConfigRequest(
    body=m.PutAsyncInvokeConfigInput(destination_config=m.DestinationConfig(
        on_success=m.Destination(destination="acs:mns:cn-hangzhou:123:/queues/q"))))))
client.delete_async_invoke_config("sdk", m.DeleteAsyncInvokeConfigRequest())

# Tags, instances, disabling.
client.tag_resources(m.TagResourcesRequest(body=m.TagResourcesInput(
    resource_type="function", resource_id=["acs:fc:local:kipwake:functions/sdk"], tag=[m.Tag(key="env", value="t")])))
resources = client.list_tag_resources(m.ListTagResourcesRequest(resource_type="function", resource_id=["sdk"])).body
assert {(one.tag_key, one.tag_value) for one in resources.tag_resources} == {("team", "a"), ("env", "t")}, resources
client.untag_resources(m.UntagResourcesRequest(resource_type="function", resource_id=["sdk"], tag_key=["env"]))
assert [one.key for one in client.get_function("sdk", m.GetFunctionRequest()).body.tags] == ["team"]
invoke(b"again")
running = client.list_instances("sdk", m.ListInstancesRequest(instance_status=["Running"])).body.instances
assert running and all(one.status == "Running" for one in running), running
client.disable_function_invocation("sdk", m.DisableFunctionInvocationRequest(reason="maintenance"))
refused("AccessDenied", 403, lambda: invoke(b"x"))
assert client.get_function("sdk", m.GetFunctionRequest()).body.invocation_restriction.reason == "maintenance"
client.enable_function_invocation("sdk")
assert invoke(b"ok")[1] == b"ko"

# Lists that page: the function of kip.yaml is among them.
for number in range(3):
    client.create_function(m.CreateFunctionRequest(body=m.CreateFunctionInput(
        function_name="page-%d" % number, runtime="custom", handler="h", code=code("x"),
        custom_runtime_config=m.CustomRuntimeConfig(command=[python, "app.py"]))))
names, token = [], None
while True:
    page = client.list_functions(m.ListFunctionsRequest(limit=2, next_token=token)).body
    assert len(page.functions) <= 2
    names += [one.function_name for one in page.functions]
    token = page.next_token
    if not token:
        break
assert names == ["digest", "page-0", "page-1", "page-2", "sdk"], names
found = client.list_functions(m.ListFunctionsRequest(prefix="page-")).body.functions
assert [one.function_name for one in found] == ["page-0", "page-1", "page-2"], found
found = client.list_functions(m.ListFunctionsRequest(tags=[m.Tag(key="team", value="a")])).body.functions
assert [one.function_name for one in found] == ["sdk"], found

# What does not fit is refused with the vendor's codes.
refused("FunctionAlreadyExists", 409, lambda: client.create_function(m.CreateFunctionRequest(
    body=m.CreateFunctionInput(function_name="sdk", runtime="custom", handler="h", code=code("x")))))
refused("FunctionNotFound", 404, lambda: client.get_function("none", m.GetFunctionRequest()))
refused("FunctionNotFound", 404, lambda: invoke(b"x", function="none"))
refused("VersionNotFound", 404, lambda: invoke(b"x", qualifier="9"))
# The server of this script uses no container engine.
refused("ResourceConflict", 409, lambda: client.create_function(m.CreateFunctionRequest(body=m.CreateFunctionInput(
    function_name="image", runtime="custom-container", handler="h",
    custom_container_config=m.CustomContainerConfig(image="x")))))
refused("LayerNotFound", 404, lambda: client.get_layer_version("none", "1"))
refused("DomainNameNotFound", 404, lambda: client.get_custom_domain("none.example.com"))
refused("InvalidArgument", 400, lambda: client.create_function(m.CreateFunctionRequest(body=m.CreateFunctionInput(
    function_name="zip", runtime="custom", handler="h", code=m.InputCodeLocation(zip_file="bm8gemlw")))))
refused("SignatureNotMatch", 403, lambda: client_of(access_id, "wrong").get_function("sdk", m.GetFunctionRequest()))
refused("InvalidAccessKeyID", 403, lambda: client_of("nobody", secret).get_function("sdk", m.GetFunctionRequest()))
scheme = Client(Config(access_key_id=access_id, access_key_secret=secret, endpoint="http://" + address))
assert scheme.get_function("sdk", m.GetFunctionRequest()).body.function_name == "sdk", "a Host with a scheme in it"

# Away.
refused("ResourceConflict", 409, lambda: client.delete_function_version("sdk", "2"))
client.delete_alias("sdk", "prod")
client.delete_function_version("sdk", "2")
for number in range(3):
    client.delete_function("page-%d" % number)
client.delete_function("sdk")
refused("FunctionNotFound", 404, lambda: client.get_function("sdk", m.GetFunctionRequest()))
print("ok")
