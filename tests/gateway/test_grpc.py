"""gRPC from a real client through the gateway to a real server, and back."""

import threading
import time
from concurrent import futures

import deployed
import grpc
import pytest

import lathe


@pytest.fixture(scope="module")
def serving():
    with lathe.Server() as server:
        service, _ = deployed.deploy(server, "speech", deployed.python_command("grpc_upstream.py"), method="grpc")
        yield server
        deployed.stop(server, service)


@pytest.fixture
def channel(serving):
    with grpc.insecure_channel(f"{serving.admin.host}:{serving.admin.port}") as channel:
        yield channel


@pytest.fixture
def metadata(serving):
    return [("authorization", f"Bearer {serving.admin.token}"), ("lathe-service", "speech")]


def counters(server):
    text = server.admin.get("/metrics").text
    lines = [line for line in text.splitlines() if line.startswith("lathe_gateway_requests_total{")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def test_a_unary_call_with_metadata_and_trailers(serving, channel, metadata):
    before = counters(serving)
    call = channel.unary_unary("/test.Echo/Echo")
    answer, done = call.with_call(b"hello", metadata=[*metadata, ("x-asked", "this")], timeout=10)
    assert answer == b"hello"
    assert dict(done.initial_metadata())["x-seen-by"] == "upstream"
    assert dict(done.trailing_metadata()) == {"x-trailer": "last", "x-asked": "this"}
    for size in (0, 1, 100_000, 3_000_000):
        assert call(b"x" * size, metadata=metadata, timeout=20) == b"x" * size
    assert counters(serving) == before + 5


def test_an_error_of_the_server_arrives_as_it_was(channel, metadata):
    with pytest.raises(grpc.RpcError) as error:
        channel.unary_unary("/test.Echo/Fail")(b"", metadata=metadata, timeout=10)
    assert error.value.code() == grpc.StatusCode.FAILED_PRECONDITION and error.value.details() == "not like this: é"
    with pytest.raises(grpc.RpcError) as error:
        channel.unary_unary("/test.Echo/Nothing")(b"", metadata=metadata, timeout=10)
    assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_errors_of_the_gateway_are_grpcs(serving, channel, metadata):
    call = channel.unary_unary("/test.Echo/Echo")
    for sent, code in (([], grpc.StatusCode.UNAUTHENTICATED),
                       ([metadata[0], ("lathe-service", "nobody")], grpc.StatusCode.NOT_FOUND),
                       ([("authorization", "Bearer wrong"), metadata[1]], grpc.StatusCode.UNAUTHENTICATED)):
        with pytest.raises(grpc.RpcError) as error:
            call(b"", metadata=sent, timeout=10)
        assert error.value.code() == code and error.value.details()


def test_a_service_is_named_by_path_or_authority_too(serving, channel, metadata):
    assert channel.unary_unary("/serve/speech/test.Echo/Echo")(b"1", metadata=metadata[:1], timeout=10) == b"1"
    options = [("grpc.default_authority", "speech.example.com")]
    with grpc.insecure_channel(f"{serving.admin.host}:{serving.admin.port}", options) as named:
        assert named.unary_unary("/test.Echo/Echo")(b"2", metadata=metadata[:1], timeout=10) == b"2"


def test_streams_both_ways(channel, metadata):
    got = list(channel.unary_stream("/test.Echo/Count")(b"1000 5000", metadata=metadata, timeout=30))
    assert len(got) == 1000 and all(len(one) == 5000 for one in got) and got[999].startswith(b"999 ")
    pieces = (b"y" * 10_000 for _ in range(500))
    assert channel.stream_unary("/test.Echo/Total")(pieces, metadata=metadata, timeout=30) == b"5000000"


def test_a_conversation_takes_turns(channel, metadata):
    said = []

    def speak():
        for number in range(50):
            lathe.wait_until(lambda: len(said) == number, what="the answer before")
            yield b"turn %d" % number

    for answer in channel.stream_stream("/test.Echo/Chat")(speak(), metadata=metadata, timeout=30):
        said.append(answer)
    assert said == [b"TURN %d" % number for number in range(50)]


def test_the_server_is_told_when_the_client_leaves(channel, metadata):
    ended = channel.unary_unary("/test.Echo/Ended")
    before = int(ended(b"", metadata=metadata, timeout=10))
    call = channel.unary_stream("/test.Echo/Follow")(b"", metadata=metadata)
    assert next(call) == b"tick"
    call.cancel()
    lathe.wait_until(lambda: int(ended(b"", metadata=metadata, timeout=10)) == before + 1, what="the end of the stream")


def test_a_slow_reader_slows_its_writer_and_nobody_else(serving, channel, metadata):
    """A hundred megabytes for one who does not read must not pile up in the gateway."""
    def resident():
        return int(open(f"/proc/{serving.process.pid}/status").read().split("VmRSS:")[1].split()[0])
    before = resident()
    slow = channel.unary_stream("/test.Echo/Count")(b"1000 100000", metadata=metadata, timeout=60)
    next(slow)
    time.sleep(0.5)
    grown = resident() - before
    assert channel.unary_unary("/test.Echo/Echo")(b"quick", metadata=metadata, timeout=10) == b"quick"
    assert grown < 50_000, f"{grown} kB"
    assert sum(1 for _ in slow) == 999


def test_many_calls_at_once(serving, metadata):
    def one(number):
        with grpc.insecure_channel(f"{serving.admin.host}:{serving.admin.port}",
                                   [("grpc.use_local_subchannel_pool", 1)]) as own:
            call = own.unary_unary("/test.Echo/Echo")
            return [call(b"%d/%d" % (number, i), metadata=metadata, timeout=30) for i in range(20)]

    with futures.ThreadPoolExecutor(16) as pool:
        for number, answers in enumerate(pool.map(one, range(16))):
            assert answers == [b"%d/%d" % (number, i) for i in range(20)]


def test_a_service_of_the_other_kind_says_so(serving, metadata):
    answer = serving.admin.post("/serve/speech/test.Echo/Echo", {})
    assert answer.status == 409, answer


def test_http2_that_is_no_http2_is_cut(serving):
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    for rest in (b"nonsense" * 20, b"\xff" * 100, b"\x00\x00\x00\x09\x00\x00\x00\x00\x00", b""):
        threading.Event().wait(0)
        got = serving.client().raw(preface + rest, timeout=0.5)
        assert b"HTTP/1.1" not in got
    assert serving.client().get("/api/v1/openapi.json").status == 200
