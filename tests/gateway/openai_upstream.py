"""Speaks enough of OpenAI's API for its client.   python3 openai_upstream.py PORT"""

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WORDS = ["Hello", ",", " you", " said", ": "]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v1/embeddings":
            data = [{"object": "embedding", "index": 0, "embedding": [0.25, -1.5]}]
            return self.answer({"object": "list", "model": asked["model"], "data": data,
                                "usage": {"prompt_tokens": 7, "total_tokens": 7}})
        if self.path == "/v1/completions":
            return self.answer({"id": "c", "object": "text_completion", "created": 1, "model": asked["model"],
                                "choices": [{"index": 0, "text": asked["prompt"] + "!", "finish_reason": "stop", "logprobs": None}],
                                "usage": {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3}})
        said = asked["messages"][-1]["content"]
        if said == "fail":
            return self.answer({"error": {"message": "the model is ill", "type": "server_error", "param": None, "code": None}}, 500)
        if not asked.get("stream"):
            return self.answer({"id": "c", "object": "chat.completion", "created": 1, "model": asked["model"],
                                "choices": [{"index": 0, "message": {"role": "assistant", "content": "".join(WORDS) + said},
                                             "finish_reason": "stop", "logprobs": None}],
                                "usage": {"prompt_tokens": 10, "completion_tokens": 6, "total_tokens": 16}})
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for word in [*WORDS, said]:
            self.event({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": asked["model"],
                        "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]})
            time.sleep(0.02)
        if asked.get("stream_options", {}).get("include_usage"):
            self.event({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": asked["model"], "choices": [],
                        "usage": {"prompt_tokens": 100, "completion_tokens": 60, "total_tokens": 160}})
        self.chunk(b"data: [DONE]\n\n")
        self.chunk(b"")

    def event(self, value):
        self.chunk(b"data: " + json.dumps(value).encode() + b"\n\n")

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def answer(self, value, status=200):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
