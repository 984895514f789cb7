"""Serves a model over HTTP in the forms clients know: OpenAI's completions and chat, streamed or whole, and the
health and metadata part of the Open Inference Protocol v2. Nothing but Python's standard library and PyTorch."""
from threads import set_threads  # before torch

import argparse
import contextlib
import json
import os
import select
import signal
import socket
import socketserver
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch

from completion import Completion, Generator, Request, RequestError
from model import load_model

MAX_BODY = 1 << 20
DRAIN_SECONDS = 10  # how long requests under way may take to end after SIGTERM


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # a token is sent when it is there
    timeout = 75  # of an idle connection; longer than the usual proxies keep theirs

    def do_GET(self):
        name, path = self.server.model_name, self.path.split("?")[0]
        model = {"id": name, "object": "model", "created": self.server.created, "owned_by": "tiny-llm",
                 "max_model_len": self.server.generator.model.config.max_position_embeddings}
        answers = {
            "/health": {"status": "ok"},
            "/v1/models": {"object": "list", "data": [model]},
            f"/v1/models/{name}": model,
            "/v2": {"name": "tiny-llm", "version": "1", "extensions": []},
            "/v2/health/live": {"live": True},
            "/v2/health/ready": {"ready": True},
            f"/v2/models/{name}": {"name": name, "versions": ["1"], "platform": "pytorch",
                                   "inputs": [{"name": "prompt", "datatype": "BYTES", "shape": [1]}],
                                   "outputs": [{"name": "text", "datatype": "BYTES", "shape": [1]}]},
            f"/v2/models/{name}/ready": {"name": name, "ready": True},
        }
        if path in answers:
            self.send_json(200, answers[path])
        else:
            self.send_json(404, RequestError(404, f"there is nothing at {path}", code="not_found").body)

    def do_POST(self):
        with self.server.track():
            try:
                self.complete()
            except RequestError as error:
                self.send_json(error.status, error.body)
            except (ConnectionError, TimeoutError):
                self.close_connection = True
                self.log_message("the client left %s", self.path)

    def complete(self):
        body = self.read_body()
        path = self.path.split("?")[0]
        if path not in ("/v1/completions", "/v1/chat/completions"):
            raise RequestError(404, f"there is nothing at {path}", code="not_found")
        try:
            body = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise RequestError(400, f"the body is not JSON: {error}", code="invalid_json") from None
        request = Request(body, chat=path == "/v1/chat/completions")
        completion = Completion(self.server.generator, request)
        # Any 'model' is answered by the one there is: whoever routed the request here has chosen already.
        head = {"id": ("chatcmpl-" if request.chat else "cmpl-") + uuid.uuid4().hex, "created": int(time.time()),
                "model": self.server.model_name}
        started = time.monotonic()
        if request.stream:
            self.stream(request, completion, head)
        else:
            text = "".join(piece for piece in completion if not self.check_client())
            choice = {"index": 0, "finish_reason": completion.finish_reason, "logprobs": None,
                      **({"message": {"role": "assistant", "content": text}} if request.chat else {"text": text})}
            kind = "chat.completion" if request.chat else "text_completion"
            self.send_json(200, {**head, "object": kind, "choices": [choice], "usage": completion.usage()})
        self.log_message("%s %d tokens in %.3f s, %s", path, completion.count, time.monotonic() - started,
                         completion.finish_reason)

    def stream(self, request, completion, head):
        head["object"] = "chat.completion.chunk" if request.chat else "text_completion"
        # HTTP/1.0 knows no chunks; there the connection's end is the body's.
        self.chunked = self.request_version != "HTTP/1.0"
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Cache-Control", "no-cache")
        self.send_header("X-Accel-Buffering", "no")
        self.send_header(*(("Transfer-Encoding", "chunked") if self.chunked else ("Connection", "close")))
        self.end_headers()

        def send(text=None, finish_reason=None, role=None):
            choice = {"index": 0, "finish_reason": finish_reason, "logprobs": None}
            if request.chat:
                choice["delta"] = {"role": role, "content": ""} if role else {"content": text} if text else {}
            else:
                choice["text"] = text or ""
            self.send_event({**head, "choices": [choice]})

        if request.chat:
            send(role="assistant")
        for piece in completion:
            self.check_client()
            if piece:
                send(piece)
        send(finish_reason=completion.finish_reason)
        if request.stream_usage:
            self.send_event({**head, "choices": [], "usage": completion.usage()})
        self.send_event("[DONE]")
        if self.chunked:
            self.wfile.write(b"0\r\n\r\n")

    def send_event(self, value):
        data = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        event = f"data: {data}\n\n".encode(errors="replace")
        self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event) if self.chunked else event)

    def check_client(self):
        """Ends the work for a client that has closed its connection, which a write alone may not show."""
        if select.select([self.connection], [], [], 0)[0]:
            if not self.connection.recv(1, socket.MSG_PEEK):
                raise ConnectionAbortedError

    def read_body(self):
        # Whatever is left unread would be taken for the next request.
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit():
            self.close_connection = True
            raise RequestError(411, "the request must say its Content-Length", code="length_required")
        if int(length) > MAX_BODY:
            self.close_connection = True
            raise RequestError(413, f"the body may have at most {MAX_BODY} bytes", code="too_large")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise ConnectionAbortedError
        return body

    def send_json(self, status, value):
        data = json.dumps(value, ensure_ascii=False).encode(errors="replace")
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if self.close_connection or self.server.stopping:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def log_request(self, code="-", size="-"):
        if not (self.command == "GET" and str(code) == "200"):  # health checks would drown the rest
            super().log_request(code, size)


class Server(ThreadingHTTPServer):
    daemon_threads = True  # idle connections do not keep the process
    request_queue_size = 128

    def __init__(self, address, model, name):
        super().__init__(address, Handler)
        self.generator, self.model_name = Generator(model), name
        self.created, self.stopping = int(time.time()), False
        self.active, self.changed = 0, threading.Condition()

    def server_bind(self):
        # Not HTTPServer's, which asks the DNS for the machine's name and may wait for it.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):  # clients may leave at any time
            super().handle_error(request, client_address)

    @contextlib.contextmanager
    def track(self):
        """Counts a request as under way."""
        self.count(1)
        try:
            yield
        finally:
            self.count(-1)

    def count(self, change):
        with self.changed:
            self.active += change
            self.changed.notify_all()

    def stop(self, *_):
        self.stopping = True
        # In a thread of its own: shutdown waits for the loop that this very signal interrupted.
        threading.Thread(target=self.shutdown).start()

    def drain(self):
        with self.changed:
            return self.changed.wait_for(lambda: self.active == 0, DRAIN_SECONDS)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--model_dir", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT") or 8000))
    arguments = parser.parse_args(argv)
    set_threads()
    model = load_model(arguments.model_dir).to("cuda" if torch.cuda.is_available() else "cpu")
    name = os.environ.get("MODEL_NAME") or Path(arguments.model_dir).resolve().name
    server = Server((arguments.host, arguments.port), model, name)
    list(zip(range(2), server.generator.tokens(b"\n", 0, 0)))  # the first step of all is slow
    signal.signal(signal.SIGTERM, server.stop)
    signal.signal(signal.SIGINT, server.stop)
    print(f"serving {name} on http://{arguments.host}:{server.server_port}", flush=True)
    server.serve_forever(poll_interval=0.1)
    server.server_close()
    if not server.drain():
        print("stopped with requests under way", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
