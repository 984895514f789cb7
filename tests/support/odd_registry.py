"""A registry that does what it is told, wrong things too, and remembers what it was asked.

    with OddRegistry(image) as source:
        source.behave = lambda request: request.cut(1000) or True    # before the right answer; true: answered
"""

import base64
import http.server
import json
import re
import threading

import registry


class OddRegistry:
    """Serves `images` (by tag) of every repository on a port of 127.0.0.1."""

    def __init__(self, images, indexes=None):
        self.manifests, self.blobs = {}, {}
        for tag, image in images.items():
            self.add(tag, image.manifest, image.kind)
            self.blobs.update({registry.digest(blob): blob for blob in image.blobs})
        for tag, document in (indexes or {}).items():
            self.add(tag, document, registry.INDEX)
        self.behave = lambda request: False
        self.asked = []  # (path, headers)
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"source": self})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.authority = f"127.0.0.1:{self.server.server_port}"
        self.url = f"http://{self.authority}"

    def add(self, tag, document, kind):
        self.manifests[tag] = self.manifests[registry.digest(document)] = (document, kind)

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def requests(self, part):
        with self.lock:
            return [headers for path, headers in self.asked if part in path]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    source = None

    def log_message(self, *_):
        pass

    def do_GET(self):
        with self.source.lock:
            self.source.asked.append((self.path, dict(self.headers.items())))
        try:
            if not self.source.behave(self):
                self.right()
        except ConnectionError:
            self.close_connection = True

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        return True

    def refuse(self, status, code="DENIED", message="no", **headers):
        return self.answer(status, json.dumps({"errors": [{"code": code, "message": message}]}).encode(), **headers)

    def content(self):
        """What this path stands for, and its type."""
        found = re.fullmatch(r"/v2/.+/(manifests|blobs)/([^/?]+)(\?.*)?", self.path)
        if found and found[1] == "manifests":
            return self.source.manifests.get(found[2])
        return (self.source.blobs[found[2]], "application/octet-stream") if found and found[2] in self.source.blobs else None

    def first_byte(self):
        return int(re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[1])

    def right(self, ranges=True, most=None):
        found = self.content()
        if not found:
            return self.refuse(404, "MANIFEST_UNKNOWN", "there is nothing of that name")
        body, kind = found
        first = self.first_byte() if ranges else 0
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) - first))
        self.end_headers()
        self.wfile.write(body[first:] if most is None else body[first:first + most])
        if most is not None:
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)
        return True

    def basic(self):
        """The user name and password that came."""
        kind, _, value = self.headers.get("Authorization", "").partition(" ")
        return base64.b64decode(value).decode() if kind == "Basic" else None
