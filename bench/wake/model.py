"""A model that takes START seconds to start, and says how long it did take since BEGAN, the first moment of its
command.   PORT=… START=… BEGAN=… python3 model.py"""

import http.server
import os
import time


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = f"{OWN_START:.6f}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


time.sleep(float(os.environ["START"]))
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)
OWN_START = time.time() - float(os.environ["BEGAN"])
server.serve_forever()
