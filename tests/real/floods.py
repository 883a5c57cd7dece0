#!/usr/bin/env python3
"""Floods of HTTP/2 frames, with figures.

    tests/real/floods.py target/release/tracegate [CONNECTIONS]

Every kind of flood is sent by so many connections, one after the other. Each has to be closed within a second and to be
counted, resident memory may grow by less than 16 MiB, and the 99th percentile of what others wait for their answers
stays under twice its value, or within five milliseconds of it, which they cost each other on two cores. The others are
asked by a process of their own. Needs Python 3.9, Linux and nginx.
"""

import concurrent.futures
import http.client
import multiprocessing
import socket
import struct
import sys
import tempfile
import time
from pathlib import Path

from stage import Failed, Nginx, Single, expect, needed, raise_file_limit

MIB = 1 << 20
MOST_GROWTH = 16 * MIB
SHARED = 0.005
"""Seconds: what the flooding client, the server and the askers cost each other on a machine of two cores."""
MOST_SECONDS = 1.0
CLOSED_BY = 10.0
"""After so many seconds a flood that nobody ends is given up."""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
GET = bytes([0x82, 0x86, 0x84, 0x01, 1]) + b"a"
END_STREAM, END_HEADERS = 1, 4


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def reset(number):
    stream = 2 * number + 1
    return frame(1, END_STREAM | END_HEADERS, stream, GET) + frame(3, 0, stream, struct.pack(">I", 8))


def continuation(number):
    return frame(1, END_STREAM, 1, GET) if number == 0 else frame(9, 0, 1, bytes([0, 1]) + b"x" + bytes([1]) + b"y")


def empty(number):
    return frame(1, END_HEADERS, 1, GET) if number == 0 else frame(0, 0, 1)


FLOODS = {
    "rapid reset": reset,
    "CONTINUATION": continuation,
    "SETTINGS": lambda number: frame(4, 0, 0, bytes([0, 3, 0, 0, 0, 100])),
    "PING": lambda number: frame(6, 0, 0, bytes(8)),
    "empty frames": empty,
}


def flood(port, kind):
    """Sends one kind until the connection is closed; how long that took, in seconds."""
    batches = [b"".join(FLOODS[kind](number) for number in range(batch * 500, (batch + 1) * 500)) for batch in range(40)]
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setblocking(False)
        pending = PREFACE + frame(4, 0, 0)
        begun = time.monotonic()
        while time.monotonic() < begun + CLOSED_BY:
            try:
                # what is answered is read, as a clever flood does
                if connection.recv(1 << 16) == b"":
                    return time.monotonic() - begun
            except BlockingIOError:
                pass
            except ConnectionError:
                return time.monotonic() - begun
            if not pending:
                pending = batches.pop(0) if batches else b""
            try:
                pending = pending[connection.send(pending):] if pending else pending
            except BlockingIOError:
                time.sleep(0.0005)
            except ConnectionError:
                return time.monotonic() - begun
    raise Failed(f"{kind}: nobody has closed the connection for {CLOSED_BY:.0f} s")


def ask(port, seconds):
    """What others wait for their answers, in seconds each."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    waited, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        begun = time.perf_counter()
        connection.request("GET", "/small.txt")
        answer = connection.getresponse()
        answer.read()
        waited.append(time.perf_counter() - begun)
        expect(answer.status == 200, f"another client got {answer.status}")
        time.sleep(0.001)
    return waited


def p99(waited):
    return sorted(waited)[len(waited) * 99 // 100]


def others(pool, port, seconds, meanwhile=None):
    """The 99th percentile of two clients while something is done, which is repeated until their time is over."""
    asking = [pool.submit(ask, port, seconds) for _ in range(2)]
    while meanwhile and not all(asked.done() for asked in asking):
        meanwhile()
    return p99([waited for asked in asking for waited in asked.result()])


def run_floods(gateway, pool, connections):
    seconds = max(3.0, connections / 10)
    quiet = others(pool, gateway.port, seconds)
    print(f"{'':14} {'closed within':>14} {'memory':>10} {'p99 of others':>14}   (quiet: {quiet * 1000:.2f} ms)")
    wrong = []
    for kind in FLOODS:
        gateway.metric("tracegate_connections_total")
        gateway.forget_peak()
        before, counted = gateway.memory("VmRSS"), floods(gateway)
        took = []

        def one():
            if len(took) < connections:
                took.append(flood(gateway.port, kind))
            time.sleep(0.02)

        loud = others(pool, gateway.port, seconds, one)
        # the machine may have been busy with something else: what holds has to hold once more
        again = loud if loud < 2 * quiet else min(loud, others(pool, gateway.port, seconds, lambda: flood(gateway.port, kind)))
        grown = gateway.memory("VmHWM") - before
        counted = floods(gateway) - counted
        print(f"{kind:14} {max(took) * 1000:11.0f} ms {grown / MIB:6.1f} MiB {again * 1000:11.2f} ms   "
              f"{len(took)} connections, {counted} counted")
        wrong += [f"{kind}: closed after {max(took):.2f} s"] * (max(took) > MOST_SECONDS)
        wrong += [f"{kind}: {grown / MIB:.1f} MiB more"] * (grown > MOST_GROWTH)
        wrong += [f"{kind}: p99 of others {again * 1000:.2f} ms, {quiet * 1000:.2f} before"] * (again > max(2 * quiet, quiet + SHARED))
        wrong += [f"{kind}: {counted} counted of {len(took)}"] * (counted < len(took))
    expect(not wrong, "; ".join(wrong))


def floods(gateway):
    return gateway.metric("tracegate_connections_total", outcome="flood")


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    needed("nginx")
    raise_file_limit()
    connections = int(sys.argv[2]) if len(sys.argv) > 2 else 30
    with tempfile.TemporaryDirectory(prefix="tracegate-floods-") as name:
        directory, started = Path(name), []
        files = directory / "files"
        files.mkdir(mode=0o755)
        directory.chmod(0o755)
        (files / "small.txt").write_text("made to order\n" * 64)
        try:
            with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
                started.append(Nginx(directory, files))
                started.append(Single(sys.argv[1], directory, started[0].port))
                others(pool, started[1].port, 1.0)
                run_floods(started[1], pool, connections)
            print("floods: passed")
        except Failed as failed:
            sys.exit(f"floods: {failed}")
        finally:
            for process in reversed(started):
                process.stop()


if __name__ == "__main__":
    main()
