"""A served model for tests: answers at once or after `?work=SECONDS`, and can misbehave on request.

Environment: PORT; VERSION (told in every answer); START_DELAY (seconds until it listens); LOADING (seconds in which it
listens and answers 503).
"""

import http.server
import json
import os
import socketserver
import sys
import threading
import time
import urllib.parse


def executed_at():
    """When this process was started, as time.time() has it; to the kernel's hundredth of a second."""
    fields = open("/proc/self/stat").read().rsplit(")", 1)[1].split()
    return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK"))


EXECUTED = executed_at()
VERSION = os.environ.get("VERSION", "")
time.sleep(float(os.environ.get("START_DELAY", "0")))
LOADED_AT = time.monotonic() + float(os.environ.get("LOADING", "0"))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.do_GET()

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        if time.monotonic() < LOADED_AT:
            return self.answer(503, {"loading": True})
        time.sleep(float(query.get("work", "0")))
        self.answer(200, {"version": VERSION, "pid": os.stat("/proc/self").st_ino, "port": os.environ["PORT"],
                          "executed": EXECUTED, "listening": LISTENING, "path": url.path,
                          "volume": os.environ.get("VOLUME_DIR", "")})
        if url.path == "/die":
            print("about to die", flush=True)
            threading.Timer(0.02, os._exit, [int(query.get("code", "137"))]).start()
        if url.path == "/fill":
            threading.Thread(target=fill).start()
        if url.path == "/deaf":
            server.socket.close()
        return None


def fill():
    held = []
    while True:
        held.append(b"x" * (64 << 20))


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    request_queue_size = 512
    daemon_threads = True

    def handle_error(self, *_):
        pass


server = Server(("127.0.0.1", int(os.environ["PORT"])), Handler)
LISTENING = time.time()
print("listening", file=sys.stderr, flush=True)
server.serve_forever(poll_interval=0.05)
