#!/usr/bin/env python3
"""tracegate in front of servers that nobody here wrote, asked by clients that nobody here wrote.

    tests/real/run.py [target/release/tracegate] [WORD…]

nginx, `python3 -m http.server`, grpcio and websockets stand behind the gateway; curl, wrk, h2load, grpcio and websockets ask;
Prometheus scrapes the metrics, Redis holds what two gateways share; every span is counted where it arrives. Words choose the sentences whose names contain one of them.
Needs Linux, Python 3.9 or later with prometheus_client, grpcio and websockets, and from Debian: nginx wrk nghttp2-client curl prometheus redis-server.
Only loopback addresses and free ports; every count and every wait is bounded; all that was started is stopped.
"""

import asyncio
import concurrent.futures
import hashlib
import http.client
import importlib.util
import json
import os
import queue
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from collector import Collector
from stage import (PROJECT, Failed, Gateway, Nginx, Prometheus, PythonServer, Redis, clean_environment, eventually,
                   expect, needed, raise_file_limit, run)

MIB = 1 << 20
LARGE = 1024 * MIB
MOST_GROWTH = 32 * MIB
LOAD = 100_000
IDLE = 2_000
SHARED = 20
CERTIFICATE = PROJECT / "certs" / "gateway.pem"


class Stage:
    """The servers, the collector and one gateway that most sentences share."""

    def __init__(self, binary, directory):
        self.binary, self.directory = binary, directory
        self.files = directory / "files"
        self.files.mkdir(mode=0o755)
        directory.chmod(0o755)
        self.small = b"made to order\n" * 64
        (self.files / "small.txt").write_bytes(self.small)
        (self.files / "slow.bin").write_bytes(b"x" * 600_000)
        self.processes = []
        self.collectors = []

    def set_up(self):
        self.nginx = self.keep(Nginx(self.directory, self.files))
        self.python = self.keep(PythonServer(self.directory, self.files))
        self.collector = self.new_collector()
        self.gateway = self.new_gateway("shared", self.collector)

    def keep(self, process):
        self.processes.append(process)
        return process

    def new_collector(self):
        self.collectors.append(Collector())
        return self.collectors[-1]

    def new_gateway(self, name, collector, more=""):
        return self.keep(Gateway(name, self.binary, self.directory, collector, self.nginx, self.python, more))

    def close(self):
        for process in reversed(self.processes):
            process.stop()
        for collector in self.collectors:
            collector.close()


# The four ways to ask: what curl and h2load are told for each.
WAYS = [
    ("http/1.1", False, ["--http1.1"], ["--h1"], "1.1"),
    ("h2c", False, ["--http2-prior-knowledge"], [], "2"),
    ("http/1.1 over TLS", True, ["--http1.1"], ["--h1"], "1.1"),
    ("h2 over TLS", True, ["--http2"], [], "2"),
]


def curl(*arguments, seconds=120):
    """Asks by curl and returns what --write-out says."""
    said = run("curl", "-sS", "--noproxy", "*", "--cacert", CERTIFICATE, "--max-time", seconds, *arguments,
               seconds=seconds + 5)
    return said


def curl_gets_the_same_bytes_over_every_protocol_from_both_servers(stage):
    gateway, asked = stage.gateway, 0
    for upstream in ("nginx", "python"):
        for way, tls, how, _, version in WAYS:
            trace = os.urandom(16).hex()
            body, head = stage.directory / "body", stage.directory / "head"
            said = curl(*how, "-o", body, "-D", head, "-w", "%{http_code} %{http_version}",
                        "-H", f"traceparent: 00-{trace}-00f067aa0ba902b7-01",
                        gateway.url(f"/{upstream}/small.txt", tls))
            asked += 1
            expect(said == f"200 {version}", f"{upstream} over {way}: {said}")
            expect(body.read_bytes() == stage.small, f"{upstream} over {way}: another body")
            fields = head.read_text().lower()
            expect(f'server-timing: trace;desc="00-{trace}-' in fields, f"{way}: no trace in the answer: {fields}")
            expect("x-request-id: " in fields and "via: " in fields, f"{way}: {fields}")
            eventually(f"spans of {upstream} over {way}", lambda: stage.collector.of_trace(trace) == (1, 1))
    return f"{asked} requests, each with its SERVER and CLIENT span under the caller's trace"


def curl_gets_what_a_server_says_beyond_200(stage):
    gateway = stage.gateway
    small = gateway.url("/nginx/small.txt")
    tag = re.search(r"etag: (\S+)", curl("-I", small), re.IGNORECASE)[1]
    cases = [
        ("a part", ["-r", "0-9", small], "206 10"),
        ("nothing new", ["-H", f"if-none-match: {tag}", small], "304 0"),
        ("a missing file of nginx", [gateway.url("/nginx/none")], "404"),
        ("a missing file of http.server", [gateway.url("/python/none")], "404"),
        ("a HEAD", ["-I", small], "200 0"),
        ("a method that http.server does not know", ["-X", "PATCH", gateway.url("/python/small.txt")], "501"),
        ("no route", [gateway.url("/elsewhere")], "404"),
        ("a path that leaves the root", ["--path-as-is", gateway.url("/nginx/../../etc/passwd")], "400"),
    ]
    for what, arguments, expected in cases:
        said = curl("-o", "/dev/null", "-w", "%{http_code} %{size_download}", *arguments)
        expect(said.startswith(expected), f"{what}: {said}, expected {expected}")
    problem = json.loads(curl(gateway.url("/elsewhere")))
    expect(problem["reason"] == "no_route" and problem["status"] == 404, f"no problem+json: {problem}")
    return f"{len(cases)} cases"


def a_hundred_thousand_requests_leave_no_unexplained_error_and_two_spans_each(stage):
    gateway, each, figures = stage.gateway, LOAD // len(WAYS), []
    for way, tls, _, how, _ in WAYS:
        gateway.settle()
        _, servers, clients = stage.collector.count()
        failures = gateway.failures()
        said = run("h2load", *how, "-n", each, "-c", 32, "-m", 1 if how else 8, gateway.url("/nginx/small.txt", tls),
                   seconds=600)
        done = re.search(r"requests: (\d+) total.* (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", said)
        expect(done and [int(number) for number in done.groups()] == [each, each, 0, 0, 0], f"{way}: {said}")
        expect(f"status codes: {each} 2xx, 0 3xx, 0 4xx, 0 5xx" in said, f"{way}: {said}")
        gateway.settle()
        _, servers_after, clients_after = stage.collector.count()
        got = (servers_after - servers, clients_after - clients)
        expect(got == (each, each), f"{way}: {got[0]} SERVER and {got[1]} CLIENT spans for {each} requests")
        expect(gateway.failures() == failures, f"{way}: {gateway.failures()}, before {failures}")
        figures.append(f"{way} {re.search(r'([0-9.]+) req/s', said)[1]}/s")
    return f"{each * len(WAYS)} requests, {2 * each * len(WAYS)} spans; " + ", ".join(figures)


def wrk_sees_no_error_and_leaves_only_what_it_abandons(stage):
    gateway, figures = stage.gateway, []
    for upstream, connections, seconds in (("nginx", 32, 5), ("python", 4, 3)):
        gateway.settle()
        failures, before = gateway.failures(), gateway.requests()
        said = run("wrk", "-t", 1, "-c", connections, "-d", f"{seconds}s", gateway.url(f"/{upstream}/small.txt"))
        expect("Socket errors" not in said and "Non-2xx" not in said, f"{upstream}: {said}")
        done = int(re.search(r"(\d+) requests in", said)[1])
        expect(done > 0, f"{upstream}: {said}")
        gateway.settle()
        # wrk drops its connections in mid-request when its time is over
        left = gateway.requests() - before - done
        expect(0 <= left <= connections, f"{upstream}: {gateway.requests() - before} recorded, {done} answered")
        new = {reason: count - failures.get(reason, 0) for reason, count in gateway.failures().items()}
        new = {reason: count for reason, count in new.items() if count}
        expect(set(new) <= {"client_gone"} and sum(new.values()) <= left, f"{upstream}: failures {new}, {left} abandoned")
        figures.append(f"{upstream} {re.search(r'Requests/sec: +([0-9.]+)', said)[1]}/s, {left} abandoned")
    return "; ".join(figures)


def promtool_accepts_the_metrics(stage):
    page = stage.gateway.page("/metrics")
    run("promtool", "check", "metrics", send=page.encode())
    expect("quantile=" not in page, "there is a summary on the page")
    return f"{len(page.splitlines())} lines"


OPEN_METRICS = "application/openmetrics-text;version=1.0.0"


def the_reference_parsers_read_both_formats_of_the_metrics(stage):
    from prometheus_client import parser as text_parser
    from prometheus_client.openmetrics import parser as open_parser

    gateway = stage.gateway
    curl("-o", "/dev/null", gateway.url("/nginx/small.txt"))
    eventually("an exemplar", lambda: "trace_id" in gateway.page("/metrics", accept=OPEN_METRICS))
    text = list(text_parser.text_string_to_metric_families(gateway.page("/metrics")))
    families = list(open_parser.text_string_to_metric_families(gateway.page("/metrics", accept=OPEN_METRICS)))
    exemplars = sum(sample.exemplar is not None for family in families for sample in family.samples)
    expect(exemplars > 0, "no exemplar")
    # the text parser calls families of counters as OpenMetrics does, but not those of infos
    names = {family.name + "_info" * (family.type == "info") for family in families}
    expect(names == {family.name for family in text}, names ^ {family.name for family in text})
    return f"{len(families)} families, {exemplars} exemplars"


def prometheus_leads_from_a_bucket_to_a_trace_that_was_received(stage):
    gateway, collector = stage.gateway, stage.collector
    for path in ("/nginx/small.txt", "/python/small.txt", "/elsewhere"):
        curl("-o", "/dev/null", gateway.url(path))
    prometheus, begun = stage.keep(Prometheus(stage.directory, gateway)), time.time()

    def up():
        return [one["value"][1] for one in prometheus.ask("query", query="up").get("result", [])] == ["1"]

    eventually("prometheus scrapes the gateway", up)
    about = prometheus.ask("metadata", metric="http_server_request_duration_seconds")
    expect([(one["type"], one["unit"]) for one in about.get("http_server_request_duration_seconds", [])]
           == [("histogram", "seconds")], f"it is told something else: {about}")

    def exemplars(name):
        found = prometheus.ask("query_exemplars", query=f"{name}_bucket", start=begun - 600, end=time.time() + 60)
        return [exemplar["labels"] for series in found for exemplar in series["exemplars"]]

    figures = []
    for name, kept in (("http_server_request_duration_seconds", collector.servers),
                       ("http_client_request_duration_seconds", collector.clients)):
        stored = eventually(f"exemplars of {name}", lambda: exemplars(name))
        ids = {(bytes.fromhex(labels["trace_id"]), bytes.fromhex(labels["span_id"])) for labels in stored}
        with collector.lock:
            unknown = ids - kept.keys()
        expect(not unknown, f"{name}: {len(unknown)} of {len(ids)} spans never came to the collector")
        figures.append(f"{len(ids)} of {name}")
    prometheus.stop()
    return "exemplars stored and read back, each of a span received: " + ", ".join(figures)


def a_gibibyte_passes_both_ways_and_memory_stays_flat(stage):
    gateway = stage.new_gateway("large", stage.new_collector())
    large = stage.files / "large.bin"
    expected = write_large(large)
    figures = []
    for way, tls, how, _, _ in (WAYS[0], WAYS[3]):
        # what a first small exchange needs is not growth
        curl(*how, "-o", "/dev/null", gateway.url("/nginx/small.txt", tls))
        begun, before = time.monotonic(), grown_from(gateway)
        command = ["curl", "-sS", "-f", "--noproxy", "*", "--cacert", str(CERTIFICATE), "--max-time", "300", *how,
                   gateway.url("/nginx/large.bin", tls)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=clean_environment()) as download:
            digest = digest_of(download.stdout)
        expect(download.returncode == 0 and digest == expected, f"{way}: the download differs ({download.returncode})")
        figures.append(figure(f"down by {way}", gateway, before, begun))

        begun, before = time.monotonic(), grown_from(gateway)
        said = curl(*how, "-T", large, "-o", "/dev/null", "-w", "%{http_code}",
                    gateway.url("/nginx/uploads/large.bin", tls), seconds=300)
        expect(said == "201", f"{way}: the upload is answered {said}")
        uploaded = stage.nginx.uploads / "large.bin"
        with open(uploaded, "rb") as file:
            expect(digest_of(file) == expected, f"{way}: what nginx has stored differs")
        uploaded.unlink()
        figures.append(figure(f"up by {way}", gateway, before, begun))
    large.unlink()
    gateway.stop()
    return ", ".join(figures)


def write_large(path):
    """A gibibyte in which no two mebibytes are alike; returns its digest."""
    digest, block = hashlib.sha256(), bytearray(os.urandom(MIB))
    with open(path, "wb") as file:
        for number in range(LARGE // MIB):
            block[:8] = number.to_bytes(8, "big")
            file.write(block)
            digest.update(block)
    return digest.hexdigest()


def digest_of(stream):
    digest = hashlib.sha256()
    while chunk := stream.read(MIB):
        digest.update(chunk)
    return digest.hexdigest()


def grown_from(gateway):
    gateway.forget_peak()
    return gateway.memory("VmRSS")


def figure(what, gateway, before, begun):
    growth = gateway.memory("VmHWM") - before
    expect(growth < MOST_GROWTH, f"{what}: resident memory grew by {growth / MIB:.1f} MiB")
    return f"{what} +{growth / MIB:.1f} MiB in {time.monotonic() - begun:.1f} s"


def two_thousand_idle_connections_are_closed_in_time_and_their_files_return(stage):
    gateway = stage.new_gateway("idle", stage.new_collector(),
                                '[listeners.plain.timeouts]\nidle = "3s"\nhead = "3s"')
    files, begun = gateway.files(), time.monotonic()
    silent = [connect(gateway) for _ in range(IDLE // 2)]
    served = [connect(gateway) for _ in range(IDLE - len(silent))]
    for connection in served:
        connection.sendall(b"GET /nginx/small.txt HTTP/1.1\r\nhost: localhost\r\n\r\n")
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        expect(answer.status == 200 and answer.read() == stage.small, f"status {answer.status}")
    halves = [connect(gateway) for _ in range(20)]
    for connection in halves:
        connection.sendall(b"GET /nginx/small.txt HTTP/1.1\r\nhost: loc")
    opened, most = time.monotonic() - begun, gateway.files()
    expect(opened > 3 or most >= files + IDLE, f"{most} files are open for {IDLE} connections")
    for connection in silent + served:
        expect(read_to_end(connection) == b"", "an idle connection is told something")
    for connection in halves:
        answer = read_to_end(connection)
        expect(answer.startswith(b"HTTP/1.1 408 ") and b"client_timeout" in answer, f"half a head: {answer[:200]}")
    closed = time.monotonic() - begun
    expect(closed < opened + 10, f"closed only after {closed:.1f} s")
    for connection in silent + served + halves:
        connection.close()
    eventually("no connection is open", lambda: gateway.metric("tracegate_connections_open") == 0)
    # a few connections to nginx may still wait in their pool
    left = eventually("the files are closed", lambda: gateway.files() <= files + 4 and gateway.files())
    expect(gateway.metric("tracegate_connections_total", outcome="timeout") >= IDLE, "they are not counted as timeout")
    gateway.stop()
    return f"{files} files open before, {most} with them, {left} after; opened in {opened:.1f} s, all closed after {closed:.1f} s"


def connect(gateway):
    return socket.create_connection(("127.0.0.1", gateway.plain), timeout=30)


def read_to_end(connection):
    read = b""
    try:
        while chunk := connection.recv(65536):
            read += chunk
    except ConnectionResetError:
        pass
    except TimeoutError:
        raise Failed("a connection is still open after 30 s") from None
    return read


def sigterm_under_load_loses_no_request(stage):
    collector = stage.new_collector()
    gateway = stage.new_gateway("leaving", collector, '[shutdown]\ndrain_delay = "2s"')
    leaving, over = threading.Event(), time.monotonic() + 60
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        # a client that is told `Connection: close` opens another one, as long as the gateway still accepts
        loops = [pool.submit(ask_until, gateway, leaving, over) for _ in range(8)]
        # 600 kB at 100 kB/s: they end after the drain delay
        slow = [pool.submit(curl, *how, "-o", "/dev/null", "-w", "%{http_code} %{size_download}",
                            gateway.url("/nginx/slowly/slow.bin", tls)) for _, tls, how, _, _ in WAYS]
        time.sleep(1)
        begun = time.monotonic()
        gateway.ask_to_stop()
        eventually("/readyz says 503", lambda: gateway.ready() == 503, 2)
        time.sleep(1)
        leaving.set()
        answered = [loop.result() for loop in loops]
        for (way, *_), answer in zip(WAYS, slow):
            expect(answer.result() == "200 600000", f"{way}, under way at SIGTERM: {answer.result()}")
    code = gateway.ended()
    took = time.monotonic() - begun
    expect(code == 0, f"exit code {code}: {gateway.errors.read_text()[-800:]}")
    try:
        connect(gateway).close()
        raise Failed("somebody still accepts")
    except ConnectionRefusedError:
        pass
    asked, late, told = (sum(column) for column in zip(*answered))
    expect(late > 0 and told > 0, f"after SIGTERM {late} requests were answered, {told} times with `Connection: close`")
    lines = gateway.access_log()
    odd = [line for line in lines if line.get("status") != 200 or "reason" in line]
    expect(not odd, f"{len(odd)} requests did not succeed: {odd[:3]}")
    everything = asked + len(WAYS)
    _, servers, clients = collector.count()
    expect((len(lines), servers, clients) == (everything,) * 3,
           f"{everything} answers, {len(lines)} log lines, {servers} SERVER and {clients} CLIENT spans")
    return f"{everything} requests answered, {late} of them begun after the signal; exit 0 after {took:.1f} s"


def ask_until(gateway, leaving, over):
    """Asks again and again: (answers, those begun after the gateway was asked to stop, those that said close)."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.plain, timeout=30)
    answers = late = told = 0
    while not leaving.is_set() and time.monotonic() < over:
        stopping = gateway.ready() == 503 if answers % 50 == 0 else late > 0
        connection.request("GET", "/nginx/small.txt")
        answer = connection.getresponse()
        body = answer.read()
        expect(answer.status == 200 and body, f"status {answer.status} after {answers} answers")
        answers, late = answers + 1, late + stopping
        told += answer.getheader("connection") == "close"
    connection.close()
    return answers, late, told


def grpcio_calls_in_every_way_and_every_failure_is_told(stage):
    import grpc
    from talkers import SERVICE, STATUSES, Chat, Orders, routes

    orders, chat = Orders(), Chat()
    collector = stage.new_collector()
    gateway = stage.new_gateway("grpc", collector, routes(orders, chat))
    try:
        certificate = grpc.ssl_channel_credentials(CERTIFICATE.read_bytes())
        named = [("grpc.ssl_target_name_override", "localhost")]
        calls = 0
        for channel in (grpc.insecure_channel(f"127.0.0.1:{gateway.plain}"),
                        grpc.secure_channel(f"127.0.0.1:{gateway.secure}", certificate, named)):
            with channel:
                one = channel.unary_unary(f"/{SERVICE}/One")
                answer, call = one.with_call(b"order", timeout=20)
                expect((answer, dict(call.trailing_metadata()).get("x-length")) == (b"order", "5"), f"unary: {answer}")
                down = list(channel.unary_stream(f"/{SERVICE}/Down")(b"1000", timeout=20))
                expect(down == [b"%d" % number for number in range(1000)], f"{len(down)} messages came down")
                up = channel.stream_unary(f"/{SERVICE}/Up")((b"x" * 1000 for _ in range(1000)), timeout=20)
                expect(up == b"1000000", f"{up} bytes went up")
                # each message waits for the echo of the one before
                heard = queue.Queue()

                def turns():
                    yield b"0"
                    while (message := heard.get(timeout=20)) != b"99":
                        yield b"%d" % (int(message) + 1)

                both = channel.stream_stream(f"/{SERVICE}/Both")(turns(), timeout=20)
                echoes = [heard.put(message) or message for message in both]
                expect(len(echoes) == 100, f"{len(echoes)} echoes")
                calls += 4
                for code in list(STATUSES)[1:]:
                    try:
                        one(b"fail %d" % code, timeout=20)
                        raise Failed(f"status {code}: it succeeded")
                    except grpc.RpcError as error:
                        expect(error.code() == STATUSES[code] and error.details() == "as asked", f"{code}: {error}")
                    calls += 1
                try:
                    channel.unary_unary(f"/{SERVICE}/Wait")(b"3", timeout=0.5)
                    raise Failed("no deadline")
                except grpc.RpcError as error:
                    expect(error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, f"{error}")
                expect(orders.left.wait(20) and 0 < orders.seconds < 0.6, f"the server had {orders.seconds} s")
                orders.left.clear()
                calls += 1
        gateway.settle()
        failed = gateway.failures().get("grpc_status", 0)
        expect(failed == 2 * 6, f"{failed} failures by status for six codes on two channels: {gateway.failures()}")
        expect(gateway.requests() == calls, f"{gateway.requests()} recorded, {calls} made")
        return f"{calls} calls, {failed} failures by status"
    finally:
        orders.stop()
        chat.stop()


def websockets_talk_and_their_close_codes_are_told(stage):
    from talkers import Chat, Orders, routes

    orders, chat = Orders(), Chat()
    collector = stage.new_collector()
    gateway = stage.new_gateway("websockets", collector, routes(orders, chat))
    try:
        asyncio.run(talk_to_the_chat(f"ws://127.0.0.1:{gateway.plain}/chat", None))
        secure = ssl.create_default_context(cafile=CERTIFICATE)
        asyncio.run(talk_to_the_chat(f"wss://127.0.0.1:{gateway.secure}/chat", secure))
        eventually("the tunnels are over", lambda: gateway.requests() == 12 and gateway.metric("tracegate_streams_active") == 0)
        expect(gateway.failures() == {"websocket_close": 2}, f"1011 on two listeners: {gateway.failures()}")
        lines = eventually("the lines", lambda: gateway.access_log() if len(gateway.access_log()) == 12 else None)
        codes = sorted(line["close_code"] for line in lines)
        expect(codes == sorted(2 * [1000, 1000, 1001, 1008, 1011, 4000]), f"{codes}")
        return f"{len(lines)} tunnels, their codes told"
    finally:
        orders.stop()
        chat.stop()


def two_gateways_share_a_limit_over_redis_and_do_as_told_without_it(stage):
    redis = stage.keep(Redis(stage.directory))
    names = ("open", "closed", "local")
    more = f"""
[redis.main]
address = "redis://127.0.0.1:{redis.port}"
timeout = "1s"              # the machine may be busy
"""
    for name in names:
        more += f"""
[rate_limits.{name}]
requests = {SHARED}
per = "1h"
key = "route"
redis = "main"
on_failure = "{name}"
[routes.{name}]
match = {{ path = "/{name}/{{*rest}}" }}
upstream = "nginx"
strip_prefix = "/{name}"
rate_limit = "{name}"
"""
    collector = stage.new_collector()
    gateways = [stage.new_gateway(f"sharing-{number}", collector, more) for number in (1, 2)]

    def ask(name, times):
        """The statuses of so many requests, by turns to one gateway and to the other."""
        paths = [gateways[number % 2].url(f"/{name}/small.txt") for number in range(times)]
        said = run("curl", "-s", "--noproxy", "*", "-w", "%{http_code}\\n", *(part for path in paths for part in ("-o", "/dev/null", path)))
        return [int(status) for status in said.split()]

    for name in names:
        statuses = ask(name, SHARED + 10)
        expect(statuses == [200] * SHARED + [429] * 10, f"{name}: {statuses}")
    redis.process.kill()
    redis.process.wait()
    gone = {name: ask(name, 6) for name in names}
    expect(gone["open"] == [200] * 6, f"fail-open: {gone['open']}")
    expect(gone["closed"] == [503] * 6, f"fail-closed: {gone['closed']}")
    expect(gone["local"] == [200] * 6, f"each with its own bucket: {gone['local']}")
    for name in names:
        counted = sum(gateway.metric("tracegate_rate_limit_decisions_total", outcome=f"failed_{name}") for gateway in gateways)
        expect(counted == 6, f"failed_{name}: {counted}")
    redis = stage.keep(Redis(stage.directory, redis.port))
    # it has forgotten everything, and counts from the beginning as soon as both have found it
    back = [eventually("both have found it", lambda: ask("closed", 1) == [200]) for _ in gateways]
    statuses = ask("closed", SHARED + 10)
    expect(statuses[-5:] == [429] * 5 and len(back) == 2, f"after its return: {statuses}")
    return f"{SHARED} of {SHARED + 10} requests pass whichever gateway is asked; without Redis open, closed and local do as they say"
async def talk_to_the_chat(url, context):
    """Six tunnels. Not by the library's client of threads: over TLS its handshake now and then never sends its request,
    since it reads and writes one OpenSSL session from two threads, which OpenSSL forbids."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed

    async with connect(url, ssl=context, max_size=None) as talk:
        for message in ["", "hello", "x" * MIB, b"\0" * 70_000]:
            await talk.send(message)
            echo = await asyncio.wait_for(talk.recv(), 20)
            expect(echo == message, f"another echo of {len(message)}")
        await asyncio.wait_for(await talk.ping(), 20)
    for code in (1000, 1001, 1008, 1011, 4000):
        async with connect(url, ssl=context) as talk:
            await talk.send(f"close {code}")
            try:
                await asyncio.wait_for(talk.recv(), 20)
                raise Failed(f"{code}: not closed")
            except ConnectionClosed as closed:
                expect(closed.rcvd.code == code, f"{code}: {closed}")


def every_span_log_line_and_count_agrees_at_the_end(stage):
    gateway = stage.gateway
    spans = gateway.settle()
    received, servers, clients = stage.collector.count()
    requests, attempts = gateway.requests(), gateway.metric("tracegate_endpoint_requests_total")
    expect(spans["dropped"] == 0 and spans["unsampled"] == 0, f"the gateway's balance: {spans}")
    expect(spans["exported"] == received == servers + clients, f"{spans['exported']} exported, {received} received")
    expect((servers, clients) == (requests, attempts),
           f"{servers} SERVER spans for {requests} requests, {clients} CLIENT spans for {attempts} attempts")
    expect(not stage.collector.orphans(), f"{len(stage.collector.orphans())} CLIENT spans without their SERVER span")
    peak = gateway.memory("VmHWM") / MIB
    gateway.ask_to_stop()
    expect(gateway.ended() == 0, f"exit code {gateway.process.returncode}: {gateway.errors.read_text()[-800:]}")
    lines = gateway.access_log()
    expect(len(lines) == requests, f"{len(lines)} log lines for {requests} requests")
    # wrk leaves in mid-request, curl asks for two things that are refused
    known = {"client_gone", "no_route", "bad_request"}
    odd = [line for line in lines if line.get("reason", "client_gone") not in known | {"upstream_status"}]
    odd += [line for line in lines if line.get("reason") == "upstream_status" and line.get("status") != 501]
    expect(not odd, f"{len(odd)} unexplained: {odd[:3]}")
    diagnostics = [line for line in gateway.errors.read_text().splitlines() if " WARN " in line or " ERROR " in line]
    expect(not diagnostics, f"diagnostics: {diagnostics[:5]}")
    return f"{requests} requests, {received} spans, {len(lines)} log lines; resident memory at most {peak:.0f} MiB"


SENTENCES = [
    curl_gets_the_same_bytes_over_every_protocol_from_both_servers,
    curl_gets_what_a_server_says_beyond_200,
    a_hundred_thousand_requests_leave_no_unexplained_error_and_two_spans_each,
    wrk_sees_no_error_and_leaves_only_what_it_abandons,
    promtool_accepts_the_metrics,
    the_reference_parsers_read_both_formats_of_the_metrics,
    prometheus_leads_from_a_bucket_to_a_trace_that_was_received,
    a_gibibyte_passes_both_ways_and_memory_stays_flat,
    two_thousand_idle_connections_are_closed_in_time_and_their_files_return,
    grpcio_calls_in_every_way_and_every_failure_is_told,
    websockets_talk_and_their_close_codes_are_told,
    sigterm_under_load_loses_no_request,
    two_gateways_share_a_limit_over_redis_and_do_as_told_without_it,
    every_span_log_line_and_count_agrees_at_the_end,
]


def main():
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        sys.exit(__doc__)
    binary = Path(arguments[0] if arguments else PROJECT / "target/release/tracegate").resolve()
    if not binary.is_file():
        sys.exit(f"{binary} is not there: cargo build --release")
    needed("nginx", "wrk", "h2load", "curl", "promtool", "prometheus", "redis-server")
    missing = [name for name in ("prometheus_client", "grpc", "websockets") if not importlib.util.find_spec(name)]
    if missing:
        sys.exit(f"not found: {', '.join(missing)}. pip install prometheus_client grpcio websockets")
    raise_file_limit()
    words = arguments[1:]
    chosen = [test for test in SENTENCES if not words or any(word in test.__name__ for word in words)]
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="tracegate-real-") as directory:
        stage = Stage(binary, Path(directory))
        try:
            stage.set_up()
            for test in chosen:
                begun = time.monotonic()
                name = test.__name__.replace("_", " ")
                try:
                    says = test(stage)
                except Exception as error:  # whatever it is, the others are still told
                    failed += 1
                    kind = "" if isinstance(error, Failed) else f"{type(error).__name__}: "
                    print(f"FAILED  {name}\n        {kind}{error}", flush=True)
                else:
                    passed += 1
                    print(f"ok      {name}\n        {says} ({time.monotonic() - begun:.1f} s)", flush=True)
        finally:
            stage.close()
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    main()
