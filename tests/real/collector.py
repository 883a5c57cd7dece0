"""An OTLP/HTTP collector that counts spans. It reads as much of the protobuf as that needs."""

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SERVER, CLIENT = 2, 3  # opentelemetry.proto.trace.v1.Span.SpanKind


class Collector:
    """Listens on a free port of the loopback interface until it is closed."""

    def __init__(self):
        self.lock = threading.Lock()
        self.servers = {}  # (trace id, span id) of each SERVER span, with its parent's span id
        self.clients = {}  # the same of each CLIENT span
        self.received = 0
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.take(body)
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()

    def take(self, body):
        """Counts the spans of one ExportTraceServiceRequest."""
        spans = [span(body, *place) for place in spans_of(body)]
        with self.lock:
            self.received += len(spans)
            for kind, trace, own, parent in spans:
                kept = {SERVER: self.servers, CLIENT: self.clients}.get(kind)
                if kept is not None:
                    kept[trace, own] = parent

    def count(self):
        """Spans received so far: (of all kinds, SERVER, CLIENT). A span that came twice counts twice in the
        first number only."""
        with self.lock:
            return self.received, len(self.servers), len(self.clients)

    def orphans(self):
        """CLIENT spans whose SERVER span has not come."""
        with self.lock:
            return [key for key, parent in self.clients.items() if (key[0], parent) not in self.servers]

    def of_trace(self, trace):
        """How many (SERVER, CLIENT) spans this trace has."""
        with self.lock:
            return tuple(sum(key[0].hex() == trace for key in kept) for kept in (self.servers, self.clients))


def spans_of(body):
    """Where each span stands: resource_spans (1), scope_spans (2), spans (2)."""
    for resource in nested(body, 0, len(body), 1):
        for scope in nested(body, *resource, 2):
            yield from nested(body, *scope, 2)


def span(body, start, end):
    """(kind, trace id, span id, parent's span id); kind is the last field of these."""
    trace = own = parent = b""
    for number, value in fields(body, start, end):
        if number == 1:
            trace = body[value[0] : value[1]]
        elif number == 2:
            own = body[value[0] : value[1]]
        elif number == 4:
            parent = body[value[0] : value[1]]
        elif number == 6:
            return value, trace, own, parent
    return 0, trace, own, parent


def nested(body, start, end, wanted):
    return (value for number, value in fields(body, start, end) if number == wanted)


def fields(body, at, end):
    """Each field's number and value: a number, or (start, end) of what has a length."""
    while at < end:
        key, at = varint(body, at)
        kind = key & 7
        if kind == 0:
            value, at = varint(body, at)
        elif kind == 2:
            length, at = varint(body, at)
            value, at = (at, at + length), at + length
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
            value, at = (at, at + length), at + length
        else:
            raise ValueError(f"wire type {kind} at {at}")
        yield key >> 3, value


def varint(body, at):
    value = shift = 0
    while True:
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
