"""A gRPC server without generated code: messages are bytes."""

import os
import time
from concurrent import futures

import grpc


def unary(request, context):
    if request == b"fail":
        context.set_trailing_metadata((("x-sum", "7"),))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as asked")
    context.set_trailing_metadata((("x-sum", str(len(request))),))
    seen = dict(context.invocation_metadata())
    return request + b"|" + seen.get("x-mine", "").encode()


def counting(request, context):
    for number in range(int(request)):
        yield str(number).encode()


def both(requests, context):
    for request in requests:
        yield request.upper()


def slow(request, context):
    for number in range(1000):
        if not context.is_active():
            print("grpc: the caller left", flush=True)
            return
        yield str(number).encode()
        time.sleep(0.05)


class Handler(grpc.GenericRpcHandler):
    def service(self, call):
        return {
            "/test.Echo/Unary": grpc.unary_unary_rpc_method_handler(unary),
            "/test.Echo/Count": grpc.unary_stream_rpc_method_handler(counting),
            "/test.Echo/Both": grpc.stream_stream_rpc_method_handler(both),
            "/test.Echo/Slow": grpc.unary_stream_rpc_method_handler(slow),
        }.get(call.method)


server = grpc.server(futures.ThreadPoolExecutor(16))
server.add_generic_rpc_handlers((Handler(),))
server.add_insecure_port(f"127.0.0.1:{os.environ['PORT']}")
server.start()
server.wait_for_termination()
