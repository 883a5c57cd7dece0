#!/usr/bin/env python3
"""A day of trouble in two minutes, with figures.

    tests/real/day.py target/dist/tracegate [SECONDS]

Three endpoints under steady load. One is killed, one is made slow, one answers garbage; each comes back. The
configuration is reloaded every second, each time different, and its certificate is swapped; at the end another process
takes over the port and the first one is told to stop. Every request is counted on both sides: what the client missed,
and what the gateway says was the reason. Half the clients speak TLS. Needs Python 3.9, `openssl` and Linux.
"""

import asyncio
import collections
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from stage import Failed, clean_environment, eventually, expect, free_port, raise_file_limit

CLIENTS = 32
PAUSE = 0.02
"""Of a client between two requests, in seconds."""


class Endpoint:
    """An origin whose manners can be changed while it runs."""

    def __init__(self, name):
        self.name, self.port, self.manner, self.served = name, free_port(), "well", 0
        self.server, self.open = None, set()

    async def start(self):
        self.server = await asyncio.start_server(self.connection, "127.0.0.1", self.port)

    async def kill(self):
        self.server.close()
        for writer in list(self.open):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def connection(self, reader, writer):
        self.open.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head.lower())
                if length:
                    await reader.readexactly(int(length[1]))
                self.served += 1
                if self.manner == "slowly":
                    await asyncio.sleep(3)
                if self.manner == "garbage":
                    writer.write(b"\x00\x01 this is not HTTP\r\n\r\n")
                    await writer.drain()
                    break
                body = self.name.encode() * 100
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open.discard(writer)
            writer.close()


class Client:
    """Asks again and again over a kept connection, and says how each request ended."""

    def __init__(self, port, tls, tally):
        self.port, self.tls, self.tally = port, tls, tally
        self.reader = self.writer = None

    async def run(self, over):
        context = None
        if self.tls:
            context = ssl.create_default_context()
            # the certificate is swapped for one of another key; that it is shown at all is what counts here
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        number = 0
        while not over.is_set():
            method = ("GET", "GET", "GET", "POST")[number % 4]
            number += 1
            try:
                outcome = await asyncio.wait_for(self.ask(method, context), 15)
            except asyncio.TimeoutError:
                outcome = "no answer within 15 s"
            except (OSError, asyncio.IncompleteReadError) as error:
                outcome = type(error).__name__
            if not isinstance(outcome, int) or outcome != 200:
                self.close()
            self.tally[method, outcome] += 1
            await asyncio.sleep(PAUSE)
        self.close()

    async def ask(self, method, context):
        fresh = self.writer is None
        if fresh:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context)
        body = b"{}" if method == "POST" else b""
        head = f"{method} /orders HTTP/1.1\r\nhost: shop\r\ncontent-length: {len(body)}\r\n\r\n"
        try:
            self.writer.write(head.encode() + body)
            answer = await self.reader.readuntil(b"\r\n\r\n")
        except (OSError, asyncio.IncompleteReadError):
            if fresh:
                raise
            # closed while it was kept: what any client does
            self.close()
            return await self.ask(method, context)
        await self.reader.readexactly(int(re.search(rb"content-length: (\d+)", answer.lower())[1]))
        status = int(answer.split(b" ", 2)[1])
        if b"connection: close" in answer.lower():
            self.close()
        return status

    def close(self):
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


class Day:
    def __init__(self, binary, directory, seconds):
        self.binary, self.directory, self.seconds = Path(binary).resolve(), directory, seconds
        self.plain, self.secure = free_port(), free_port()
        self.endpoints = [Endpoint(name) for name in ("one", "two", "three")]
        self.tally, self.told, self.number = collections.Counter(), [], 0

    def write(self, admin):
        """The configuration, each time with another route and another number in it."""
        self.number += 1
        urls = ", ".join(f'"http://127.0.0.1:{endpoint.port}"' for endpoint in self.endpoints)
        text = f"""
[listeners.plain]
address = "127.0.0.1:{self.plain}"
reuse_port = true
[listeners.secure]
address = "127.0.0.1:{self.secure}"
reuse_port = true
tls = {{ certificate_file = "shown.pem", key_file = "shown-key.pem" }}
[admin]
address = "127.0.0.1:{admin}"
[shutdown]
drain_delay = "1s"
[telemetry]
otlp = "off"
[upstreams.shop]
endpoints = [{urls}]
panic_threshold = 0.3       # one of three may have to do
outliers = {{ consecutive = 3, max_ejected = 0.67, ejection = "2s" }}
[routes.orders]
match = {{ path = "/orders" }}
upstream = "shop"
timeouts = {{ request = "10s", attempt = "500ms" }}
retry = {{ attempts = 3, on = ["connect", "reused", "reset", "timeout"] }}
[routes.number_{self.number}]
match = {{ path = "/number/{self.number}" }}
upstream = "shop"
"""
        new = self.directory / "routes.toml.new"
        new.write_text(text)
        os.replace(new, self.directory / "routes.toml")

    def certificate(self):
        """A new certificate takes the place of the one that is shown."""
        run = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
               "-days", "30", "-subj", "/CN=shop", "-addext", "subjectAltName=DNS:shop",
               "-keyout", "new-key.pem", "-out", "new.pem"]
        subprocess.run(run, cwd=self.directory, check=True, capture_output=True)
        os.replace(self.directory / "new-key.pem", self.directory / "shown-key.pem")
        os.replace(self.directory / "new.pem", self.directory / "shown.pem")

    def start(self, name, admin):
        log = open(self.directory / f"{name}.err", "wb")
        out = open(self.directory / f"{name}.log", "wb")
        process = subprocess.Popen([self.binary, "--config", "routes.toml"], cwd=self.directory, stdout=out,
                                   stderr=log, env=clean_environment())

        def ready():
            expect(process.poll() is None, (self.directory / f"{name}.err").read_text()[-800:])
            return page(admin, "/readyz") is not None

        eventually(f"{name} is ready", ready)
        return process

    async def run(self):
        for endpoint in self.endpoints:
            await endpoint.start()
        self.certificate()
        first_admin, second_admin = free_port(), free_port()
        self.write(first_admin)
        first = self.start("first", first_admin)
        second = None
        over = asyncio.Event()
        clients = [Client(self.secure if index % 2 else self.plain, index % 2, self.tally) for index in range(CLIENTS)]
        asking = [asyncio.create_task(client.run(over)) for client in clients]
        reloading = asyncio.create_task(self.reload(first, first_admin))
        try:
            await self.trouble()
            reloading.cancel()
            # the file that the second one starts with stays as it is, but for where its admin page is
            self.told.append("another process takes over, the first one is told to stop")
            status = json.loads(page(first_admin, "/status"))
            reloads = metric(first_admin, "tracegate_reloads_total")
            self.write(second_admin)
            second = await asyncio.to_thread(self.start, "second", second_admin)
            first.send_signal(signal.SIGTERM)
            await asyncio.sleep(self.seconds / 8)
            over.set()
            await asyncio.gather(*asking)
            code = await asyncio.to_thread(first.wait, 30)
            second.send_signal(signal.SIGTERM)
            await asyncio.to_thread(second.wait, 30)
            return self.figures(status, reloads, code)
        finally:
            for process in filter(None, (first, second)):
                if process.poll() is None:
                    process.kill()

    async def trouble(self):
        one, two, three = self.endpoints
        part = self.seconds / 8
        await asyncio.sleep(part)
        self.told.append("one is killed")
        await one.kill()
        await asyncio.sleep(part)
        self.told.append("two is slow: 3 s, where an attempt has 500 ms")
        two.manner = "slowly"
        await asyncio.sleep(part)
        two.manner = "well"
        await asyncio.sleep(part)
        self.told.append("three answers garbage")
        three.manner = "garbage"
        await asyncio.sleep(part)
        self.told.append("all are back")
        three.manner = "well"
        await one.start()
        await asyncio.sleep(2 * part)

    async def reload(self, process, admin):
        while True:
            await asyncio.sleep(1)
            self.write(admin)
            if self.number % 3 == 0:
                await asyncio.to_thread(self.certificate)
            # what is written every second is never quiet for long enough to be taken up by itself
            process.send_signal(signal.SIGHUP)

    def figures(self, status, reloads, code):
        lines = []
        for name in ("first", "second"):
            for line in (self.directory / f"{name}.log").read_text().splitlines():
                try:
                    lines.append(json.loads(line))
                except ValueError:
                    raise Failed(f"a broken line in the access log of {name}: {line}") from None
        reasons = collections.Counter(
            (line["method"], line.get("status"), line.get("reason"), line.get("not_retried"))
            for line in lines if line.get("reason"))
        asked = sum(self.tally.values())
        saved = sum(1 for line in lines if line["attempts"] > 1 and line.get("status") == 200)
        print("\n".join(f"- {told}" for told in self.told))
        print(f"{asked} requests asked, {len(lines)} recorded, {saved} saved by another attempt, {reloads} reloads, "
              f"exit code {code}")
        print("what clients got:", {f"{method} {outcome}": times for (method, outcome), times in self.tally.items()})
        print("what the gateway says of the rest (method, status, reason, why not tried again):")
        for reason, times in reasons.most_common():
            print(f"  {times} {reason}")
        print("served by:", {endpoint.name: endpoint.served for endpoint in self.endpoints})
        missed = {key: times for key, times in self.tally.items() if key[1] != 200}
        unexplained = {key: times for key, times in missed.items() if not isinstance(key[1], int)}
        expect(code == 0, f"the first process ended with {code}")
        expect(not unexplained, f"requests without an answer: {unexplained}")
        gets = {key: times for key, times in missed.items() if key[0] == "GET"}
        expect(not gets, f"a GET that a retry could have saved: {gets}")
        recorded = collections.Counter((method, status) for (method, status, _, _), times in reasons.items()
                                       for _ in range(times) if status != 200)
        for (method, outcome), times in missed.items():
            expect(recorded[method, outcome] >= times, f"{method} {outcome} has no reason on record")
        expect(reloads >= self.seconds * 6 // 8 - 5, f"{reloads} reloads")


def page(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.read().decode()
    except OSError:
        return None


def metric(port, name):
    found = re.findall(rf"^{name}{{[^}}]*}} (\d+)", page(port, "/metrics") or "", re.MULTILINE)
    return sum(int(value) for value in found)


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    raise_file_limit()
    directory = Path(tempfile.mkdtemp(prefix="day"))
    seconds = int(sys.argv[2]) if len(sys.argv) > 2 else 120
    try:
        asyncio.run(Day(sys.argv[1], directory, seconds).run())
        print("a day of trouble: passed")
    except Failed as failed:
        for name in ("first", "second"):
            log = directory / f"{name}.err"
            if log.exists():
                print(f"{name}: {log.read_text()[-1500:]}", file=sys.stderr)
        sys.exit(f"a day of trouble: {failed}")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
