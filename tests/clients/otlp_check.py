"""Reads what a collector was sent, by the protocol's own definitions. Argument: a file with one body of `POST /v1/traces` a line.
Prints the spans as JSON."""

import base64
import json
import sys

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

spans = []
for line in open(sys.argv[1]):
    body = json.loads(line)
    for scopes in body["resourceSpans"]:
        for scope in scopes["scopeSpans"]:
            for span in scope["spans"]:
                # The JSON of OTLP writes ids as hex, where Protobuf's own has Base64.
                for key, length in (("traceId", 32), ("spanId", 16), ("parentSpanId", 16)):
                    assert len(span[key]) in (length, 0 if key == "parentSpanId" else length), span
                    span[key] = base64.b64encode(bytes.fromhex(span[key])).decode()
    # Unknown names and wrong types are errors.
    request = json_format.Parse(json.dumps(body), ExportTraceServiceRequest())
    for scopes in request.resource_spans:
        named = {attribute.key: attribute.value.string_value for attribute in scopes.resource.attributes}
        assert named["service.name"] == "kipwake", named
        for scope in scopes.scope_spans:
            for span in scope.spans:
                value = lambda value: getattr(value, value.WhichOneof("value"))
                spans.append({
                    "trace": span.trace_id.hex(),
                    "id": span.span_id.hex(),
                    "parent": span.parent_span_id.hex(),
                    "name": span.name,
                    "kind": span.kind,
                    "micros": (span.end_time_unix_nano - span.start_time_unix_nano) // 1000,
                    "start": span.start_time_unix_nano // 1_000_000,
                    "status": span.status.code,
                    "attributes": {attribute.key: value(attribute.value) for attribute in span.attributes},
                })
print(json.dumps(spans))
