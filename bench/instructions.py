#!/usr/bin/env python3
"""Instructions of one request through the whole gateway, counted by callgrind: the same on a busy machine.

    bench/instructions.py target/release/tracegate [traced=BOUND off=BOUND …]

The gateway runs twice under callgrind for each mode, for few requests and for many; the difference is what the requests
cost, the export of their spans included. Exit code 1 if a mode takes more than its bound. Needs valgrind (Debian).
"""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

FEW, MANY = 200, 4200
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1012\r\n\r\n" + b"x" * 1012
TAKEN = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n"
MODES = {
    "off": 'otlp = "off"',
    "traced": "otlp = {{ endpoint = \"http://127.0.0.1:{collector}\", protocol = \"http/protobuf\" }}",
    "sampled1": "otlp = {{ endpoint = \"http://127.0.0.1:{collector}\", protocol = \"http/protobuf\" }}\n"
                "sampling = {{ ratio = 0.01, keep_errors = true }}",
}


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


async def server(answer):
    """Answers every request alike, over kept connections; its port."""

    async def connection(reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head.lower())
                await reader.readexactly(int(length[1]) if length else 0)
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    listening = await asyncio.start_server(connection, "127.0.0.1", 0)
    return listening.sockets[0].getsockname()[1]


async def ask(port, requests):
    for _ in range(600):
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            break
        except OSError:
            await asyncio.sleep(0.1)
    else:
        sys.exit("the gateway does not listen")
    for _ in range(requests):
        writer.write(b"GET /shop/orders/42 HTTP/1.1\r\nhost: localhost\r\nuser-agent: wrk\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n")[0]:
            sys.exit(f"not what was asked for: {head}")
        await reader.readexactly(int(re.search(rb"content-length: (\d+)", head.lower())[1]))
    writer.close()


async def count(binary, directory, mode, requests):
    upstream, collector, port = await server(ANSWER), await server(TAKEN), free_port()
    telemetry = MODES[mode].format(collector=collector)
    configuration = directory / "routes.toml"
    configuration.write_text(f"""
workers = 1
[listeners.public]
address = "127.0.0.1:{port}"
[admin]
address = "127.0.0.1:{free_port()}"
[shutdown]
drain_delay = "1ms"
[telemetry]
service_name = "api-gateway"
{telemetry}
access_log = {{ enabled = false }}
[upstreams.shop]
endpoints = ["http://127.0.0.1:{upstream}"]
[routes.shop]
match = {{ path = "/shop/{{*rest}}" }}
upstream = "shop"
""")
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={directory}/out", binary, "--config", configuration]
    with open(directory / "said", "wb") as said:
        process = await asyncio.create_subprocess_exec(*map(str, command), stdout=subprocess.DEVNULL, stderr=said)
    try:
        await ask(port, requests)
        process.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(process.wait(), 120)
    finally:
        if process.returncode is None:
            process.kill()
    text = (directory / "said").read_text(errors="replace")
    if code != 0:
        sys.exit(f"the gateway ended with {code}: {text[-800:]}")
    return int(re.search(r"Collected : (\d+)", text)[1])


async def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    binary, bounds = Path(sys.argv[1]).resolve(), dict(word.split("=") for word in sys.argv[2:])
    fine = True
    with tempfile.TemporaryDirectory() as directory:
        for mode in bounds or MODES:
            few, many = [await count(binary, Path(directory), mode, requests) for requests in (FEW, MANY)]
            took = (many - few) / (MANY - FEW)
            bound = float(bounds.get(mode, "inf"))
            print(f"{mode}: {took:,.0f} instructions a request" + (f", bound {bound:,.0f}" if bounds else ""))
            fine = fine and took <= bound
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    os.environ.pop("RUST_LOG", None)
    asyncio.run(main())
