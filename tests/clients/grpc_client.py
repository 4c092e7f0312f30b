"""grpcio against a function that is started by its first call. Argument: the gateway's address."""

import sys

import grpc

address, function = sys.argv[1], sys.argv[2]


def open_channel(name):
    return grpc.insecure_channel(address, options=[("grpc.default_authority", f"{name}.localhost")])


with open_channel(function) as channel:
    unary = channel.unary_unary("/test.Echo/Unary")
    answer, call = unary.with_call(b"hello", metadata=(("x-mine", "yes"),), timeout=30)
    assert answer == b"hello|yes", answer
    assert ("x-sum", "5") in [tuple(item) for item in call.trailing_metadata()], call.trailing_metadata()
    assert dict(call.initial_metadata())["x-kip-start"] == "cold", call.initial_metadata()

    # 3 MiB, in many frames and past the window.
    large = bytes(3 << 20)
    assert unary(large, timeout=30) == large + b"|"

    numbers = list(channel.unary_stream("/test.Echo/Count")(b"2000", timeout=30))
    assert numbers == [str(number).encode() for number in range(2000)]

    # One by one: each is answered before the next is sent.
    stream = channel.stream_stream("/test.Echo/Both")
    words = iter([b"a", b"b", b"c"])
    assert list(stream(words, timeout=30)) == [b"A", b"B", b"C"]

    try:
        unary(b"fail", timeout=30)
        raise AssertionError("it must fail")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION and error.details() == "as asked", error
        assert ("x-sum", "7") in [tuple(item) for item in error.trailing_metadata()]

    slow = channel.unary_stream("/test.Echo/Slow")(b"", timeout=30)
    next(slow)
    slow.cancel()

    try:
        list(channel.unary_stream("/test.Echo/Slow")(b"", timeout=0.3))
        raise AssertionError("it must be late")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error

with open_channel("nobody") as channel:
    try:
        channel.unary_unary("/test.Echo/Unary")(b"x", timeout=30)
        raise AssertionError("there is no such function")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED and "KW-2001" in error.details(), error
print("ok")
