"""Serves a model over HTTP in the forms clients know: OpenAI's completions and chat, streamed or whole, and the
health and metadata part of the Open Inference Protocol v2. Nothing but Python's standard library and PyTorch."""
from threads import set_threads  # before torch

import argparse
import codecs
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

from model import load_model

MAX_BODY = 1 << 20
MAX_TOKENS = 4096
DRAIN_SECONDS = 10  # how long requests under way may take to end after SIGTERM


class RequestError(Exception):
    """A request that cannot be answered, in OpenAI's form."""

    def __init__(self, status, message, param=None, code=None):
        super().__init__(message)
        self.status = status
        kind = "invalid_request_error" if status < 500 else "server_error"
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


class Generator:
    """Draws bytes from the model, one at a time, for any number of requests."""

    def __init__(self, model):
        self.model = model.eval()
        self.device = next(model.parameters()).device
        # One step at a time: side by side, each thread's arithmetic would start threads of its own, all for the
        # same cores. Requests take turns byte by byte, so none waits for another to end.
        self.turn = threading.Lock()

    @torch.inference_mode()
    def step(self, tokens, past):
        with self.turn:
            logits, past = self.model(torch.tensor([tokens], device=self.device), past)
            return logits[0, -1].cpu(), past

    def tokens(self, prompt, temperature, seed):
        """Byte after byte without end. A full context goes on from its newer half, so that text may be longer."""
        context = self.model.config.max_position_embeddings
        random = torch.Generator()
        random.manual_seed(seed) if seed is not None else random.seed()
        history, past, held = list(prompt)[-context:], None, 0
        pending = history
        while True:
            if held + len(pending) > context:
                pending, past, held = history[-(context // 2):], None, 0
            logits, past = self.step(pending, past)
            held += len(pending)
            if temperature == 0:
                token = int(logits.argmax())
            else:
                weights = (logits / temperature).softmax(dim=-1)
                token = int(torch.multinomial(weights, 1, generator=random))
            yield token
            history = (history + [token])[-context:]
            pending = [token]


def field(body, name, kind, default, low=None, high=None):
    """A value of the request, checked; null is absent, as in OpenAI's interface."""
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        names = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
        raise RequestError(400, f"'{name}' must be of type {names}", name, "invalid_type")
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        raise RequestError(400, f"'{name}' must be from {low} to {high}", name, "invalid_value")
    return value


def prompt_of_completion(body):
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return prompt.encode(errors="replace")
    if isinstance(prompt, list) and all(type(token) is int and 0 <= token < 256 for token in prompt):
        return bytes(prompt)  # tokens are bytes
    raise RequestError(400, "'prompt' must be one text, or a list of tokens from 0 to 255", "prompt", "invalid_type")


def prompt_of_chat(body):
    """A base model knows no roles: what was said, a line each."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RequestError(400, "'messages' must be a list of at least one message", "messages", "invalid_type")
    lines = []
    for i, message in enumerate(messages):
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            parts = [part.get("text") if isinstance(part, dict) else None for part in content]
            content = "".join(parts) if all(isinstance(part, str) for part in parts) else None
        if not isinstance(content, str) or not isinstance(message.get("role"), str):
            raise RequestError(400, f"'messages[{i}]' must have a 'role' and a text as 'content'", "messages",
                               "invalid_value")
        lines.append(content + "\n")
    return "".join(lines).encode(errors="replace")


class Request:
    """What one completion asks for."""

    def __init__(self, body, chat):
        if not isinstance(body, dict):
            raise RequestError(400, "the body must be a JSON object")
        self.chat = chat
        # Without a prompt the model starts as after a line's end.
        self.prompt = (prompt_of_chat(body) if chat else prompt_of_completion(body)) or b"\n"
        newer = field(body, "max_completion_tokens", int, None, 1, MAX_TOKENS) if chat else None
        self.max_tokens = newer or field(body, "max_tokens", int, 64, 1, MAX_TOKENS)
        self.temperature = field(body, "temperature", (int, float), 1.0, 0, 2)
        self.seed = field(body, "seed", int, None, -(1 << 63), (1 << 63) - 1)
        self.stream = field(body, "stream", bool, False)
        self.stream_usage = field(field(body, "stream_options", dict, {}), "include_usage", bool, False)
        field(body, "n", int, 1, 1, 1)
        stop = field(body, "stop", (str, list), [])
        self.stop = [stop] if isinstance(stop, str) else stop
        if len(self.stop) > 4 or not all(isinstance(text, str) and text for text in self.stop):
            raise RequestError(400, "'stop' must be a text, or up to four", "stop", "invalid_value")


class Completion:
    """The text of one answer as it grows. Iterating gives its pieces; finish_reason and counts stand at the end."""

    def __init__(self, generator, request):
        self.generator, self.request = generator, request
        self.count, self.finish_reason = 0, "length"

    def __iter__(self):
        request = self.request
        decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a character may take several tokens
        held = ""  # text that may turn out to be the begin of a stop text, which is not to be sent
        for token in self.generator.tokens(request.prompt, request.temperature, request.seed):
            self.count += 1
            last = self.count == request.max_tokens
            held += decoder.decode(bytes([token]), final=last)
            found = [place for place in map(held.find, request.stop) if place >= 0]
            if found:
                self.finish_reason = "stop"
                yield held[:min(found)]
                return
            keep = 0 if last else max((size for text in request.stop for size in range(1, len(text))
                                       if held.endswith(text[:size])), default=0)
            yield held[:len(held) - keep]  # empty at times: a chance to see that the client has left
            held = held[len(held) - keep:]
            if last:
                return

    def usage(self):
        prompt = len(self.request.prompt)
        return {"prompt_tokens": prompt, "completion_tokens": self.count, "total_tokens": prompt + self.count}


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
