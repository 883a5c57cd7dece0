"""The measurements, one function a question. Each returns what one gateway came to in one round."""

import asyncio
import concurrent.futures
import json
import resource
import statistics
import time

import gateways
from stage import ADMIN, GATEWAY, Failed, Process, fetch, h2load, listens, spans, wrk

WARM = 2
"""Seconds of load before anything is counted."""

SETTLE = 2.5
"""Seconds after the load in which what is queued is exported; its CPU counts."""


class Running:
    """A gateway under measurement, gone when left."""

    def __init__(self, name, stage, threads=1, cores="0", **plan):
        self.name, self.stage, self.cores = name, stage, cores
        self.plan = gateways.Plan(stage.directory, threads=threads, **plan)

    def __enter__(self):
        command, environment = gateways.ALL[self.name](self.plan)
        self.process = Process(self.name, command, self.cores, self.stage.directory, environment)
        try:
            listens(GATEWAY, self.process)
        except Failed:
            self.process.stop()
            raise
        return self.process

    def __exit__(self, *_):
        self.process.stop()
        time.sleep(0.2)


def under(name, stage, load, **plan):
    """CPU per request, spans per request, memory and latency under a load."""
    with Running(name, stage, **plan) as process:
        time.sleep(0.5)
        load(WARM)
        fetch_reset()
        before = process.cpu()
        came = load(None)
        memory = process.memory()
        time.sleep(SETTLE)
        took = process.cpu() - before
        return {
            "us": took * 1e6 / came["requests"],
            "spans": spans() / came["requests"],
            "memory": memory,
            **came,
        }


def fetch_reset():
    from stage import COLLECTOR

    fetch(COLLECTOR, "/reset")


def http1(connections=64, path="/shop/orders/42", scheme="http", seconds=6, **plan):
    def measure(name, stage):
        load = lambda warm: wrk(connections, warm or seconds, path, scheme)
        return under(name, stage, load, tls=scheme == "https", **plan)

    return measure


ONE_WORKER = ", one worker"
"""Behind the name of a gateway that has one worker where others have two."""


def workers(connections=64, seconds=6, **plan):
    """Two workers and one, on the same two cores that the load has as well."""

    def measure(name, stage):
        load = lambda warm: wrk(connections, warm or seconds, cores="0,1")
        threads = 1 if name.endswith(ONE_WORKER) else 2
        return under(name.removesuffix(ONE_WORKER), stage, load, threads=threads, cores="0,1", **plan)

    return measure


SAMPLED = {"tracing off": None, "1 % sampled": 0.01, "every request traced": 1.0}
"""What tracegate is asked to trace, as it stands behind its name, and the share of requests that is."""


def cost(connections=64, seconds=6):
    """What tracing costs: the same gateway without it, with a part of the requests traced, with all."""

    def measure(name, stage):
        gateway, traced = name.split(", ")
        return under(gateway, stage, lambda warm: wrk(connections, warm or seconds), ratio=SAMPLED[traced])

    return measure


def http2(connections=16, seconds=6, **plan):
    def measure(name, stage):
        load = lambda warm: h2load(connections, warm or seconds, stage.directory, scheme="https")
        return under(name, stage, load, tls=True, **plan)

    return measure


def fixed_rate(rate, connections=64, seconds=6, **plan):
    def measure(name, stage):
        load = lambda warm: h2load(connections, warm or seconds, stage.directory, http1=True, rate=rate)
        return under(name, stage, load, **plan)

    return measure


def idle(connections=2000, **plan):
    """Memory of connections that have had one answer each and then nothing to say for five seconds."""

    def measure(name, stage):
        with Running(name, stage, **plan) as process:
            wrk(64, 1)
            time.sleep(1)
            before = process.memory()
            asyncio.run(hold(connections))
            held = asyncio.run(hold(connections, lambda: process.memory()))
            return {"memory": held, "kib": (held - before) * 1024 / connections}

    return measure


async def hold(connections, measured=None):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    ask = b"GET /shop/orders/42 HTTP/1.1\r\nhost: localhost\r\n\r\n"

    async def one():
        reader, writer = await asyncio.open_connection("127.0.0.1", GATEWAY)
        writer.write(ask)
        await reader.readuntil(b"\r\n\r\n")
        return writer

    held = []
    for _ in range(0, connections, 50):
        held += await asyncio.gather(*(one() for _ in range(50)))
    await asyncio.sleep(5)
    value = measured() if measured else None
    for writer in held:
        writer.close()
    return value


def start(routes=1000, **plan):
    """Milliseconds from the start of the process to the first answer."""

    def measure(name, stage):
        began = time.monotonic()
        with Running(name, stage, routes=routes, **plan):
            fetch(GATEWAY, "/shop/orders/42")
            return {"ms": (time.monotonic() - began) * 1000}

    return measure


def scrape(routes=1000, seconds=6):
    """A scrape with so many routes, each with two series of its own, as Prometheus asks for it, with gzip: size, time,
    CPU of the process, and what others feel of one a second."""
    page = lambda: fetch(ADMIN, "/metrics", encoding="gzip")

    def measure(name, stage):
        with Running(name, stage, routes=routes) as process:
            asyncio.run(touch(routes))
            plain = fetch(ADMIN, "/metrics")
            before, began, times = process.cpu(), time.monotonic(), 20
            for _ in range(times):
                sent = page()
            took, cpu = time.monotonic() - began, process.cpu() - before
            return {
                "megabytes": len(plain) / 1e6,
                "wire": len(sent) / 1e6,
                "ms": took * 1000 / times,
                "cpu_ms": cpu * 1000 / times,
                **disturbed(stage, seconds, lambda _: page()),
            }

    return measure


def reload(routes=10_000, seconds=6):
    """A reload of so many routes, one of them different each time: how long it takes, and what others feel of one a
    second."""

    def measure(name, stage):
        with Running(name, stage, routes=routes) as process:
            wrk(64, WARM)
            path, before, taken = stage.directory / "routes.toml", process.cpu(), []
            text = path.read_text()

            def once(number):
                path.write_text(text.replace('"/r0/{id}"', f'"/changed{number}/{{id}}"'))
                came = json.loads(fetch(ADMIN, "/api/reload", method="POST"))
                if came["outcome"] != "applied":
                    raise Failed(f"not reloaded: {came}")
                taken.append(came["took_ms"])

            felt = disturbed(stage, seconds, once)
            return {"ms": statistics.median(taken), "memory": process.memory(), **felt}

    return measure


def disturbed(stage, seconds, disturb, rate=2000):
    """p50 and p99 of requests at a steady rate by itself, and while something disturbs it once a second."""
    load = lambda: h2load(64, seconds, stage.directory, http1=True, rate=rate)
    alone = load()
    with concurrent.futures.ThreadPoolExecutor() as threads:
        loading, number = threads.submit(load), 0
        while not concurrent.futures.wait([loading], timeout=1).done:
            disturb(number)
            number += 1
        meanwhile = loading.result()
    wrong = "; ".join(filter(None, [alone["wrong"], meanwhile["wrong"]]))
    return {"p99_alone": alone["p99"], "p99": meanwhile["p99"], "wrong": wrong}


async def touch(routes):
    """One answer of 200 and one of 405 would be one series more than a client can make: a GET and a POST it is."""
    reader, writer = await asyncio.open_connection("127.0.0.1", GATEWAY)
    for number in range(routes):
        for method in ("GET", "POST"):
            length = "content-length: 0\r\n" if method == "POST" else ""
            writer.write(f"{method} /r{number}/1 HTTP/1.1\r\nhost: localhost\r\n{length}\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
    writer.close()


def soak(minutes=10, **plan):
    """Memory at minute two and at the end, at full load."""

    def measure(name, stage):
        with Running(name, stage, **plan) as process:
            wrk(64, 120)
            early = process.memory()
            came = wrk(64, int(minutes * 60) - 120)
            return {"memory": early, "memory_end": process.memory(), **came}

    return measure
