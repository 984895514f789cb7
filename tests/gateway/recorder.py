"""An upstream that believes nothing: reads HTTP/1.1 by the letter, and remembers every request and every breach.

    python3 recorder.py PORT

What it answers is what it saw, so that a test can compare. /__seen gives everything it remembers.
"""

import asyncio
import base64
import json
import re
import sys

SEEN, BREACHES = [], []
HEAD_LINE = re.compile(rb"([A-Z!#$%&'*+.^_|~0-9a-z-]+) (/[\x21-\x7e]*) HTTP/1\.1")
FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ([^\x00-\x08\x0a-\x1f\x7f]*)")
ANSWERS = {}


class Breach(Exception):
    pass


async def read_line(reader):
    line = await reader.readuntil(b"\n")
    if not line.endswith(b"\r\n") or b"\r" in line[:-2]:
        raise Breach("a line that does not end in CR LF: %r" % line)
    return line[:-2]


async def read_head(reader):
    line = await read_line(reader)
    match = HEAD_LINE.fullmatch(line)
    if not match:
        raise Breach("request line %r" % line)
    fields = []
    while True:
        line = await read_line(reader)
        if not line:
            return match[1].decode(), match[2].decode(), fields
        field = FIELD.fullmatch(line)
        if not field:
            raise Breach("field %r" % line)
        fields.append((field[1].decode().lower(), field[2].decode("latin-1")))


async def read_chunks(reader):
    body = bytearray()
    while True:
        size = await read_line(reader)
        if not re.fullmatch(rb"[0-9a-f]+", size):
            raise Breach("chunk size %r" % size)
        count = int(size, 16)
        if count == 0:
            if await read_line(reader):
                raise Breach("a trailer")
            return bytes(body)
        body += await reader.readexactly(count)
        if await reader.readexactly(2) != b"\r\n":
            raise Breach("a chunk that does not end in CR LF")


async def read_body(reader, fields):
    lengths = [v for n, v in fields if n == "content-length"]
    codings = [v for n, v in fields if n == "transfer-encoding"]
    if len(lengths) + len(codings) > 1:
        raise Breach("framed twice: %r" % fields)
    if codings:
        if codings != ["chunked"]:
            raise Breach("coding %r" % codings)
        return await read_chunks(reader)
    if lengths:
        if not re.fullmatch("[0-9]+", lengths[0]):
            raise Breach("length %r" % lengths)
        return await reader.readexactly(int(lengths[0]))
    return b""


def answer(status, body, more=""):
    return f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


async def serve_one(reader, writer):
    method, target, fields = await read_head(reader)
    names = dict(fields)
    if target == "/__seen":
        writer.write(answer(200, json.dumps({"seen": SEEN, "breaches": BREACHES}).encode()))
        return True
    body = await read_body(reader, fields)
    if target.startswith("/__answer/"):  # what to send for /raw/NAME
        ANSWERS[target.removeprefix("/__answer/")] = body
        writer.write(answer(200, b"{}"))
        return True
    SEEN.append({"method": method, "target": target, "fields": fields, "bytes": len(body),
                 "body": base64.b64encode(body[:2000]).decode()})
    if target.startswith("/raw/"):
        writer.write(ANSWERS[target.removeprefix("/raw/").partition("?")[0]])
        await writer.drain()
        return not target.endswith("?close")
    if target == "/ws" and names.get("upgrade") == "websocket":
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                     b"Sec-WebSocket-Accept: x\r\n\r\n")
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
        return False
    if target.startswith("/stream"):  # an event every 10 ms
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(20):
            event = b"data: %d\n\n" % number
            writer.write(b"%x\r\n%s\r\n" % (len(event), event))
            await writer.drain()
            await asyncio.sleep(0.01)
        writer.write(b"0\r\n\r\n")
        return True
    shown = {"method": method, "target": target, "bytes": len(body)}
    head_only = method == "HEAD"
    made = answer(200, json.dumps(shown).encode())
    writer.write(made[:made.index(b"\r\n\r\n") + 4] if head_only else made)
    return True


async def serve(reader, writer):
    try:
        while await serve_one(reader, writer):
            await writer.drain()
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError) as error:
        partial = getattr(error, "partial", b"")
        if partial:
            BREACHES.append("cut off after %r" % partial[:200])
    except Breach as breach:
        BREACHES.append(str(breach))
    finally:
        writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), limit=1 << 20)
    await server.serve_forever()


asyncio.run(main())
