"""A gRPC server whose messages are plain bytes.   python3 grpc_upstream.py PORT"""

import sys
import time
from concurrent import futures

import grpc


def echo(request, context):
    context.send_initial_metadata([("x-seen-by", "upstream")])
    context.set_trailing_metadata([("x-trailer", "last"),
                                   ("x-asked", dict(context.invocation_metadata()).get("x-asked", ""))])
    return request


def fail(request, context):
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not like this: é")


def count(request, context):
    """So many messages of so many bytes."""
    number, size = map(int, request.split())
    for i in range(number):
        yield (b"%d " % i).ljust(size, b".")


def total(requests, context):
    return b"%d" % sum(len(one) for one in requests)


def chat(requests, context):
    for one in requests:
        yield one.upper()


def sleep(request, context):
    """Answers what it knew of the call's deadline, after so many seconds."""
    remaining = context.time_remaining()
    time.sleep(float(request))
    return b"%f" % remaining


ENDED = []


def follow(request, context):
    context.add_callback(lambda: ENDED.append(1))
    while context.is_active():
        yield b"tick"
        time.sleep(0.02)


def ended(request, context):
    return b"%d" % len(ENDED)


server = grpc.server(futures.ThreadPoolExecutor(64), options=[("grpc.so_reuseport", 0)])
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", {
    "Echo": grpc.unary_unary_rpc_method_handler(echo),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "Count": grpc.unary_stream_rpc_method_handler(count),
    "Total": grpc.stream_unary_rpc_method_handler(total),
    "Chat": grpc.stream_stream_rpc_method_handler(chat),
    "Sleep": grpc.unary_unary_rpc_method_handler(sleep),
    "Follow": grpc.unary_stream_rpc_method_handler(follow),
    "Ended": grpc.unary_unary_rpc_method_handler(ended),
}),))
assert server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
server.start()
server.wait_for_termination()
