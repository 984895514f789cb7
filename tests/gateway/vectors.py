"""Requests that two readers could frame differently, and some that look so and are in order.

Each is (name, bytes, expectation). In the bytes, {P} stands for the service's path, {H} for the Host and
Authorization lines; INNER is a whole request that must never arrive as one of its own. Expectations:
  refuse  an error, and nothing after it on this connection
  pass    exactly one answer of 200
  two     two answers of 200
  any     whatever is answered, nothing is smuggled and nobody else is served wrongly
"""

INNER = b"GET {P}/smuggled HTTP/1.1\r\n{H}\r\n"
TAIL = b"0\r\n\r\n"


def request(fields, body=b"", method=b"POST", path=b"/in", version=b"HTTP/1.1", host=b"{H}"):
    return method + b" {P}" + path + b" " + version + b"\r\n" + host + fields + b"\r\n" + body


def vectors():
    out = []

    def add(name, data, expect):
        out.append((name, data, expect))

    # --- both framings -------------------------------------------------------------------------------------
    for order in ("cl-te", "te-cl"):
        for length in (0, 4, 5, 6, 1000):
            cl, te = b"Content-Length: %d\r\n" % length, b"Transfer-Encoding: chunked\r\n"
            fields = cl + te if order == "cl-te" else te + cl
            add(f"{order} with length {length}", request(fields, TAIL + INNER), "refuse")
    add("length and a coding unknown", request(b"Content-Length: 5\r\nTransfer-Encoding: x\r\n", TAIL + INNER), "refuse")

    # --- Transfer-Encoding, written in other ways ----------------------------------------------------------
    for value in (b"xchunked", b"chunked, chunked", b"chunked, identity", b"identity", b"identity, chunked", b"gzip, chunked",
                  b"chunked;q=1", b"\"chunked\"", b"'chunked'", b"chunke", b"chunkedd", b"cow, chunked", b"chunked,",
                  b",chunked", b"chunked\x0b", b"\x0bchunked", b"chunked\x00", b"\x00chunked", b"chunked\x0c", b"chun\x00ked",
                  b"ch\xc3\xbcnked", b"chunked\xa0", b"\xa0chunked", b"0", b"", b"chunked chunked", b"x\r\n chunked",
                  b"\r\n chunked", b"chunked\r\n ", b"chunked\r", b"\rchunked", b"deflate", b"compress", b"trailers"):
        expect = "refuse"
        add("TE value %r" % value, request(b"Transfer-Encoding: " + value + b"\r\n", TAIL + INNER), expect)
        add("TE value %r after a length" % value,
            request(b"Content-Length: 5\r\nTransfer-Encoding: " + value + b"\r\n", TAIL + INNER), expect)
    for value in (b"Chunked", b"CHUNKED", b"chunked ", b" chunked", b"\tchunked", b"chunked\t"):
        add("TE value %r" % value, request(b"Transfer-Encoding: " + value + b"\r\n", b"2\r\nok\r\n" + TAIL), "pass")
    for name in (b"Transfer-Encoding ", b" Transfer-Encoding", b"\tTransfer-Encoding", b"Transfer-Encoding\t",
                 b"Transfer\x00-Encoding", b"Transfer-Encoding\x00", b"\x00Transfer-Encoding", b"Transfer-Encoding\x0b",
                 b"Transfer-Encoding\r", b"Transfer-Encoding\xa0", b"\"Transfer-Encoding\"", b"Transfer-Encoding\n"):
        add("TE name %r" % name, request(b"Content-Length: 5\r\n" + name + b": chunked\r\n", TAIL + INNER), "refuse")
    for name in (b"Transfer_Encoding", b"TransferEncoding", b"Transfer-Encodin", b"X-Transfer-Encoding", b"Transfer-Encoding-"):
        add("not TE: %r" % name, request(b"Content-Length: 5\r\n" + name + b": chunked\r\n", TAIL), "pass")
    add("TE twice", request(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", TAIL + INNER), "refuse")
    add("TE twice, one identity", request(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", TAIL + INNER), "refuse")
    add("TE twice, identity first", request(b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", TAIL + INNER), "refuse")
    add("TE in HTTP/1.0", request(b"Transfer-Encoding: chunked\r\n", TAIL + INNER, version=b"HTTP/1.0"), "refuse")
    add("TE named in Connection", request(b"Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n", b"2\r\nok\r\n" + TAIL), "pass")
    add("length named in Connection", request(b"Connection: Content-Length\r\nContent-Length: 2\r\n", b"ok"), "pass")

    # --- Content-Length ------------------------------------------------------------------------------------
    for value in (b"+5", b"-5", b"5 5", b"5,5", b"5, 5", b"5;", b"0x5", b"5\x00", b"\x005", b"5.0", b"5e0", b"", b"five", b"05a",
                  b"5\x0b", b"99999999999999999999", b"18446744073709551617", b"9223372036854775808", b"4294967301a", b"5\r\n 5",
                  b"\r\n 5", b"'5'", b"\"5\"", b"5_0", b"\xd9\xa5", b"5\r", b"0005x", b"1 ", b"0 0"):
        if value == b"1 ":
            continue
        add("length %r" % value, request(b"Content-Length: " + value + b"\r\n", b"hello" + INNER), "refuse")
    for fields in (b"Content-Length: 5\r\nContent-Length: 5\r\n", b"Content-Length: 5\r\nContent-Length: 0\r\n",
                   b"Content-Length: 0\r\nContent-Length: 5\r\n", b"Content-Length: 5\r\ncontent-length: 6\r\n",
                   b"Content-Length: 5\r\nX: y\r\nContent-Length: 5\r\n"):
        add("lengths %r" % fields, request(fields, b"hello" + INNER), "refuse")
    for name in (b"Content-Length ", b" Content-Length", b"Content-Length\t", b"Content-Length\x00", b"\x00Content-Length",
                 b"Content-Length\r", b"Content-Length\x0b", b"Content Length", b"Content-Length\xa0"):
        add("length name %r" % name, request(name + b": 5\r\n", b"hello" + INNER), "refuse")
    for name in (b"Content_Length", b"ContentLength", b"X-Content-Length", b"Content-Length2"):
        add("not a length: %r" % name, request(name + b": 5\r\nContent-Length: 2\r\n", b"ok"), "pass")
    for value in (b"2 ", b" 2", b"02", b"\t2", b"002"):
        add("length %r" % value, request(b"Content-Length: " + value + b"\r\n", b"ok"), "pass")
    add("GET with a body that is a request", request(b"Content-Length: 6\r\n", b"GET / ", method=b"GET"), "pass")
    add("a length and less", request(b"Content-Length: 500\r\n", b"hello"), "any")
    add("HEAD with a body", request(b"Content-Length: 5\r\n", b"hello", method=b"HEAD"), "any")

    # --- ends of lines -------------------------------------------------------------------------------------
    add("bare LF after the request line", b"POST {P}/in HTTP/1.1\n{H}Content-Length: 2\r\n\r\nok", "refuse")
    add("bare LF after a field", request(b"Content-Length: 2\nX: y\r\n", b"ok"), "refuse")
    add("bare LF for the empty line", b"POST {P}/in HTTP/1.1\r\n{H}Content-Length: 2\r\n\nok", "refuse")
    add("bare LF everywhere", b"POST {P}/in HTTP/1.1\nHost: h\nContent-Length: 2\n\nok", "refuse")
    add("bare CR in a field", request(b"X: a\rb\r\nContent-Length: 2\r\n", b"ok"), "refuse")
    add("bare CR for a line", request(b"X: a\rTransfer-Encoding: chunked\r\nContent-Length: 5\r\n", TAIL + INNER), "refuse")
    add("CR CR LF", request(b"X: a\r\r\nContent-Length: 2\r\n", b"ok"), "refuse")
    add("LF CR", request(b"X: a\n\rContent-Length: 2\r\n", b"ok"), "refuse")
    add("NUL in a field", request(b"X: a\x00b\r\nContent-Length: 2\r\n", b"ok"), "refuse")
    add("a folded field", request(b"X: a\r\n b\r\nContent-Length: 2\r\n", b"ok"), "refuse")
    add("a folded length", request(b"Content-Length:\r\n 2\r\n", b"ok"), "refuse")
    add("a fold as the first line", b"POST {P}/in HTTP/1.1\r\n Host: h\r\n{H}Content-Length: 2\r\n\r\nok", "refuse")
    add("a line without a colon", request(b"nonsense\r\nContent-Length: 2\r\n", b"ok"), "refuse")
    add("an empty name", request(b": x\r\nContent-Length: 2\r\n", b"ok"), "refuse")
    for c in b"()<>@,;:\\\"/[]?={} \x7f\x01\x80":
        if c != ord(":"):
            add("byte %02x in a name" % c, request(b"X%c: 1\r\nContent-Length: 2\r\n" % c, b"ok"), "refuse")
    add("one empty line before", b"\r\n" + request(b"Content-Length: 2\r\n", b"ok"), "pass")
    add("two empty lines before", b"\r\n\r\n" + request(b"Content-Length: 2\r\n", b"ok"), "refuse")
    add("a bare LF before", b"\n" + request(b"Content-Length: 2\r\n", b"ok"), "refuse")
    add("a space before", b" " + request(b"Content-Length: 2\r\n", b"ok"), "refuse")

    # --- the request line ----------------------------------------------------------------------------------
    line = b"{H}Content-Length: 2\r\n\r\nok"
    for first in (b"POST  {P}/in HTTP/1.1", b"POST {P}/in  HTTP/1.1", b"POST {P}/in HTTP/1.1 ", b"POST\t{P}/in HTTP/1.1",
                  b"POST {P}/in\tHTTP/1.1", b"POST {P}/in", b"POST {P}/in HTTP/1.2", b"POST {P}/in HTTP/2.0", b"POST {P}/in HTTP/0.9",
                  b"POST {P}/in HTTP/1.1.1", b"POST {P}/in HTTP/11", b"POST {P}/in http/1.1", b"POST {P}/in HTTP/1.1x",
                  b"POST {P}/in HTTP/01.1", b"POST {P}/a b HTTP/1.1", b"P\x00ST {P}/in HTTP/1.1", b"POST {P}/\x00 HTTP/1.1",
                  b"POST {P}/in\x7f HTTP/1.1", b"POST {P}/in HTTP/1.1\x0b", b"PO(ST {P}/in HTTP/1.1", b"POST in HTTP/1.1",
                  b"POST http:// HTTP/1.1", b"POST {P}/../in HTTP/1.1", b"POST {P}/%2e%2e/in HTTP/1.1", b"POST {P}/a%2fb HTTP/1.1",
                  b"POST {P}/a%00b HTTP/1.1", b"POST {P}/a%0d%0aX:y HTTP/1.1", b"POST {P}/a\\b HTTP/1.1", b"POST {P}/%zz HTTP/1.1",
                  b"POST {P}/in#f HTTP/1.1", b"* {P}/in HTTP/1.1 HTTP/1.1", b"PRI * HTTP/2.0", b"POST * HTTP/1.1"):
        add("line %r" % first, first + b"\r\n" + line, "refuse")
    add("a method of its own", request(b"Content-Length: 2\r\n", b"ok", method=b"PURGE"), "pass")
    add("an absolute target of another host", b"POST http://other{P}/in HTTP/1.1\r\n" + line, "refuse")
    add("an absolute target", b"POST http://h{P}/in HTTP/1.1\r\n" + line, "pass")
    for host in (b"Host: a\r\nHost: h\r\n", b"Host: h h\r\n", b"Host: h/x\r\n", b"Host: h@x\r\n", b"X: y\r\n", b"Host: h\x00\r\n",
                 b"Host : h\r\n", b" Host: h\r\n"):
        add("host %r" % host, request(b"Content-Length: 2\r\n", b"ok", host=host), "refuse")

    # --- chunks --------------------------------------------------------------------------------------------
    te = b"Transfer-Encoding: chunked\r\n"
    for body in (b"2\nok\r\n0\r\n\r\n", b"2\r\nok\n0\r\n\r\n", b"2\r\nok\r\n0\n\r\n", b"2\r\nok\r\n0\r\n\n", b"2\rok\r\n0\r\n\r\n",
                 b" 2\r\nok\r\n0\r\n\r\n", b"2 \r\nok\r\n0\r\n\r\n", b"\t2\r\nok\r\n0\r\n\r\n", b"0x2\r\nok\r\n0\r\n\r\n",
                 b"+2\r\nok\r\n0\r\n\r\n", b"-2\r\nok\r\n0\r\n\r\n", b"2h\r\nok\r\n0\r\n\r\n", b"\r\n0\r\n\r\n", b"g\r\n0\r\n\r\n",
                 b"2\r\nokx\r\n0\r\n\r\n", b"2\r\no\r\n0\r\n\r\n", b"2\r\nok0\r\n\r\n", b"ffffffffffffffff\r\nok\r\n0\r\n\r\n",
                 b"10000000000000002\r\nok\r\n0\r\n\r\n", b"00000000000000002\r\nok\r\n0\r\n\r\n", b"2\x00\r\nok\r\n0\r\n\r\n",
                 b"2\r\r\nok\r\n0\r\n\r\n", b"2;a\nb\r\nok\r\n0\r\n\r\n", b"2;a\x00\r\nok\r\n0\r\n\r\n", b"2;a\rb\r\nok\r\n0\r\n\r\n",
                 b"2\r\nok\r\n0\r\nX y\r\n\r\n", b"2\r\nok\r\n0\r\n X: y\r\n\r\n", b"2\r\nok\r\n0\r\nX: y\n\r\n", b"2,2\r\nok\r\n0\r\n\r\n",
                 b"2.0\r\nok\r\n0\r\n\r\n", b"2\x0b\r\nok\r\n0\r\n\r\n", b"0_2\r\nok\r\n0\r\n\r\n", b"2\xa0\r\nok\r\n0\r\n\r\n"):
        add("chunks %r" % body, request(te, body + INNER), "broken")
    for body in (b"2;ext\r\nok\r\n0\r\n\r\n", b"2;a=b\r\nok\r\n0\r\n\r\n", b"2;a=\"b;c\"\r\nok\r\n0\r\n\r\n", b"2\r\nok\r\n0;x\r\n\r\n",
                 b"02\r\nok\r\n00\r\n\r\n", b"2\r\nok\r\n0\r\nX: y\r\n\r\n", b"2\r\nok\r\n0\r\nContent-Length: 5\r\n\r\n",
                 b"2\r\nok\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\no\r\n1\r\nk\r\n0\r\n\r\n", b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n"):
        add("chunks in order %r" % body, request(te, body), "pass")
    add("an extension without an end", request(te, b"2;" + b"x" * 100_000 + b"\r\nok\r\n0\r\n\r\n"), "broken")
    add("trailers without an end", request(te, b"0\r\n" + b"X: y\r\n" * 10_000 + b"\r\n"), "broken")
    add("a million chunks of one byte", request(te, b"1\r\na\r\n" * 1_000_000 + TAIL), "pass")
    add("chunks without an end", request(te, b"5\r\nhello\r\n"), "any")

    # --- several requests ----------------------------------------------------------------------------------
    ok = request(b"Content-Length: 2\r\n", b"ok")
    add("two requests", ok + request(b"Content-Length: 2\r\n", b"ok", path=b"/second"), "two")
    add("a chunked one and another", request(te, b"2\r\nok\r\n" + TAIL) + ok, "two")
    add("close and another", request(b"Connection: close\r\nContent-Length: 2\r\n", b"ok") + INNER, "pass")
    add("HTTP/1.0 and another", request(b"Content-Length: 2\r\n", b"ok", version=b"HTTP/1.0") + INNER, "pass")

    # --- changes of protocol -------------------------------------------------------------------------------
    up = b"Connection: Upgrade\r\nUpgrade: %s\r\n"
    for protocol in (b"h2c", b"websocket, h2c", b"TLS/1.0", b"HTTP/2.0", b"websocketx", b"foo"):
        add("Upgrade to %r, refused, and another" % protocol, request(up % protocol, ok, method=b"GET"), "two")
    add("WebSocket refused, and another", request(up % b"websocket", ok, method=b"GET"), "two")
    add("h2c settings", request(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n", ok, method=b"GET"), "two")
    add("WebSocket by POST", request((up % b"websocket") + b"Content-Length: 2\r\n", b"ok") + ok, "two")
    add("CONNECT", b"CONNECT h:80 HTTP/1.1\r\n{H}\r\n" + INNER, "refuse")
    add("Expect of something else", request(b"Expect: 200-ok\r\nContent-Length: 2\r\n", b"ok" + INNER), "refuse")
    add("Expect and a body at once", request(b"Expect: 100-continue\r\nContent-Length: 2\r\n", b"ok"), "continue")
    add("a head too large", request(b"X: " + b"y" * 70_000 + b"\r\nContent-Length: 2\r\n", b"ok"), "refuse")
    add("too many fields", request(b"X: y\r\n" * 500 + b"Content-Length: 2\r\n", b"ok"), "refuse")
    return out


def answers():
    """What an upstream may send, and what the client must see: "same" (this body, on a connection that goes on), "cut"
    (an answer that is visibly incomplete) or "bad" (an error of the gateway's)."""
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    evil = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    return [
        ("in order", whole, "same"),
        ("chunked", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "same"),
        ("chunked with extensions and trailers", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nok\r\n0\r\nA: b\r\n\r\n", "same"),
        ("a hundred early hints", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 100 + whole, "same"),
        ("two answers", whole + evil, "bad"),
        ("chunked, then another answer", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" + evil, "same"),
        ("204 and a body", b"HTTP/1.1 204 No Content\r\n\r\n" + evil, "empty"),
        ("304 and a body", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nevil", "empty"),
        ("both framings", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "bad"),
        ("two lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", "bad"),
        ("a length with a sign", b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", "bad"),
        ("an unknown coding", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "bad"),
        ("bare LF", b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", "bad"),
        ("a folded field", b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok", "bad"),
        ("a bare CR", b"HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\nContent-Length: 2\r\n\r\nok", "bad"),
        ("NUL in a field", b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 2\r\n\r\nok", "bad"),
        ("a space before a colon", b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok", "bad"),
        ("no status", b"HTTP/1.1 OK\r\nContent-Length: 2\r\n\r\nok", "bad"),
        ("status 99", b"HTTP/1.1 099 X\r\nContent-Length: 2\r\n\r\nok", "bad"),
        ("HTTP/0.9", b"ok", "bad?close"),
        ("HTTP/2", b"HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\nok", "bad"),
        ("101 unasked", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n" + evil, "bad"),
        ("a bad chunk size", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n", "cut"),
        ("a chunk too long", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n", "cut"),
        ("chunks ended by LF", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\nok\n0\n\n", "cut"),
        ("less than the length, then the end", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok", "cut?close"),
        ("chunks, then the end", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", "cut?close"),
        ("until the end", b"HTTP/1.1 200 OK\r\n\r\nok", "same?close"),
        ("a head, then the end", b"HTTP/1.1 200 OK\r\nContent-", "bad?close"),
        ("nothing at all", b"", "bad?close"),
        ("a head without an end", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 30_000, "bad?close"),
        ("a hundred thousand chunks of one byte", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 100_000 + b"0\r\n\r\n", "same"),
    ]
