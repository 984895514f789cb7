"""gRPC from a real client through the gateway to a real server, and back."""

import struct
import subprocess
import tempfile
import threading
import time
from concurrent import futures

import deployed
import grpc
import pytest

import lathe


@pytest.fixture(scope="module")
def serving():
    with lathe.Server(config={"gateway": {"firstByteTimeout": "2s"}}) as server:
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


def ask(server, path, message=b"", timeout=None, service="speech"):
    """One call by curl, which keeps no deadline itself: the header fields and trailers of the answer."""
    with tempfile.NamedTemporaryFile() as body:
        body.write(struct.pack(">BI", 0, len(message)) + message)
        body.flush()
        fields = ["content-type: application/grpc", "te: trailers", f"lathe-service: {service}",
                  f"authorization: Bearer {server.admin.token}"]
        if timeout:
            fields.append(f"grpc-timeout: {timeout}")
        out = subprocess.run(["curl", "-s", "--http2-prior-knowledge", "-m", "20", "-D", "-", "-o", "/dev/null",
                              *[word for field in fields for word in ("-H", field)], "--data-binary", f"@{body.name}",
                              server.url + path], capture_output=True, text=True, check=True).stdout
    return dict(line.split(": ", 1) for line in out.splitlines() if ": " in line)


def test_a_calls_deadline_is_kept_and_passed_on(serving, channel, metadata):
    sleep = channel.unary_unary("/test.Echo/Sleep")
    assert 5 < float(sleep(b"0", metadata=metadata, timeout=10)) < 11  # clients round it up
    assert float(sleep(b"0", metadata=metadata)) > 1e9
    began = time.monotonic()
    assert ask(serving, "/test.Echo/Sleep", b"1.9", timeout="300m")["grpc-status"] == "4"
    assert time.monotonic() - began < 1.8
    # An answer that has begun ends with the status too.
    assert ask(serving, "/test.Echo/Follow", timeout="500m")["grpc-status"] == "4"
    assert ask(serving, "/test.Echo/Echo", b"x", timeout="10S")["grpc-status"] == "0"


def test_a_deadline_counts_while_a_call_waits_for_a_replica(serving):
    made = serving.admin.post("/model/modelServer/createModelInferenceServer", {
        "modelServer": {"name": "never"},
        "modelServerVersions": [{"command": "exec sleep 1000 # $PORT", "cpu": 1, "memory": 1, "image": "host", "rate": 100,
                                 "predictMinReplicas": 1, "predictMaxReplicas": 1, "reqMethod": "grpc"}]})
    assert ask(serving, "/test.Echo/Echo", b"x", timeout="300m", service="never")["grpc-status"] == "4"
    deployed.stop(serving, made.payload["id"])


def test_who_sets_no_deadline_waits_as_long_as_the_gateway_does(channel, metadata):
    with pytest.raises(grpc.RpcError) as error:
        channel.unary_unary("/test.Echo/Sleep")(b"6", metadata=[*metadata, ("accept-language", "en")])
    assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED and "in time" in error.value.details()


def test_a_conversation_may_be_slower_than_a_first_byte(channel, metadata):
    def speak():
        for _ in range(7):
            time.sleep(0.5)
            yield b"x"

    assert channel.stream_unary("/test.Echo/Total")(speak(), metadata=metadata) == b"7"


def test_calls_over_tls(tmp_path):
    """HTTP/2 is agreed upon by ALPN; an HTTP/1.1 client of the same port is answered in HTTP/1.1."""
    certificate, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"], check=True, capture_output=True)
    with lathe.Server(config={"tls": {"certificate": certificate, "key": key}}) as server:
        service, _ = deployed.deploy(server, "speech", deployed.python_command("grpc_upstream.py"), method="grpc")
        metadata = [("authorization", f"Bearer {server.admin.token}"), ("lathe-service", "speech")]
        with open(certificate, "rb") as trusted:
            credentials = grpc.ssl_channel_credentials(trusted.read())
        with grpc.secure_channel(f"{server.admin.host}:{server.admin.port}", credentials) as channel:
            echo = channel.unary_unary("/test.Echo/Echo")
            for size in (0, 1, 3_000_000):
                assert echo(b"x" * size, metadata=metadata, timeout=20) == b"x" * size
            got = list(channel.unary_stream("/test.Echo/Count")(b"500 5000", metadata=metadata, timeout=30))
            assert len(got) == 500 and all(len(one) == 5000 for one in got)
            said = channel.stream_stream("/test.Echo/Chat")(iter([b"a", b"b"]), metadata=metadata, timeout=20)
            assert list(said) == [b"A", b"B"]
            with pytest.raises(grpc.RpcError) as error:
                echo(b"", metadata=metadata[1:], timeout=10)
            assert error.value.code() == grpc.StatusCode.UNAUTHENTICATED
        deployed.stop(server, service)


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
