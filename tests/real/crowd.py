#!/usr/bin/env python3
"""A crowd: very many idle connections and many active ones, with figures.

    tests/real/crowd.py target/release/tracegate [IDLE [ACTIVE]]

10,000 connections that say nothing and 2,000 that ask all the time, by default; then all of them leave, and they come
again. Files go back to what they were each time; memory does not grow from one crowd to the next. Needs Python 3.9, Linux,
nginx and a limit of open files above both together (`ulimit -Hn`).
"""

import asyncio
import resource
import sys
import tempfile
import time
from pathlib import Path

from stage import Failed, Nginx, Single, eventually, expect, needed, raise_file_limit

MIB = 1 << 20
MOST_LEFT = 12 * MIB
"""That one crowd may leave behind, when its threads have had something to do again: until then the allocator keeps pages."""
MOST_GROWTH = 8 * MIB
"""From one crowd to the next."""
SECONDS = 5
CROWDS = 2
PAUSE, BUSY_PAUSE = 1.0, 0.05
"""Of an active connection between two requests, in seconds; and of the few that come after the crowd."""
REQUEST = b"GET /small.txt HTTP/1.1\r\nhost: shop\r\n\r\n"
MORE_FILES = 16


async def connect(port, gate):
    async with gate:
        return await asyncio.open_connection("127.0.0.1", port)


async def active(port, gate, over, waited, pause):
    reader, writer = await connect(port, gate)
    try:
        while not over.is_set():
            begun = time.perf_counter()
            writer.write(REQUEST)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            waited.append(time.perf_counter() - begun)
            expect(head.startswith(b"HTTP/1.1 200 "), head.decode(errors="replace"))
            await asyncio.sleep(pause)
    finally:
        writer.close()


async def crowd(gateway, idle_count, active_count, pause=PAUSE):
    """They come, stay and leave; the most memory and files meanwhile, and what the active ones waited."""
    gate, over, waited = asyncio.Semaphore(200), asyncio.Event(), []
    idle = await asyncio.gather(*(connect(gateway.port, gate) for _ in range(idle_count)))
    asking = [asyncio.create_task(active(gateway.port, gate, over, waited, pause)) for _ in range(active_count)]
    most_files = 0
    for _ in range(SECONDS):
        await asyncio.sleep(1)
        most_files = max(most_files, gateway.files())
        expect(all(not asked.done() or not asked.exception() for asked in asking), "an active connection has ended")
    open_now = await asyncio.to_thread(gateway.metric, "tracegate_connections_open")
    expect(open_now == idle_count + active_count, f"{open_now} connections are open")
    memory = gateway.memory("VmRSS")
    over.set()
    await asyncio.gather(*asking)
    for _, writer in idle:
        writer.close()
    return memory, most_files, waited


def emptied(gateway):
    """Waits until nobody is connected; the memory and the files then."""
    eventually("everybody has left", lambda: gateway.metric("tracegate_connections_open") == 0, 30)
    eventually("unused upstream connections are closed", lambda: gateway.metric("tracegate_endpoint_connections") == 0, 30)
    return gateway.memory("VmRSS"), gateway.files()


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    needed("nginx")
    raise_file_limit()
    idle_count = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
    active_count = int(sys.argv[3]) if len(sys.argv) > 3 else 2_000
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit < idle_count + active_count + 2_000:
        sys.exit(f"crowd: {limit} open files are too few for {idle_count} and {active_count} connections")
    with tempfile.TemporaryDirectory(prefix="tracegate-crowd-") as name:
        directory, started = Path(name), []
        files = directory / "files"
        files.mkdir(mode=0o755)
        directory.chmod(0o755)
        (files / "small.txt").write_text("made to order\n" * 64)
        try:
            started.append(Nginx(directory, files))
            more = "[listeners.public]\nlimits.connections = 20000\ntimeouts.idle = '10m'\n"
            gateway = Single(sys.argv[1], directory, started[0].port, more)
            started.append(gateway)
            asyncio.run(crowd(gateway, 100, 100))
            before, after = emptied(gateway), []
            print(f"before: {before[0] / MIB:.1f} MiB resident, {before[1]} files")
            for number in range(1, CROWDS + 1):
                memory, most_files, waited = asyncio.run(crowd(gateway, idle_count, active_count))
                left, _ = emptied(gateway)
                # ten thousand requests
                asyncio.run(crowd(gateway, 100, 100, BUSY_PAUSE))
                after.append(emptied(gateway))
                waited.sort()
                print(f"crowd {number} of {idle_count} idle and {active_count} active: {memory / MIB:.1f} MiB "
                      f"({(memory - before[0]) / (idle_count + active_count) / 1024:.1f} KiB a connection), "
                      f"{most_files} files, {len(waited)} answers, p99 {waited[len(waited) * 99 // 100] * 1000:.1f} ms; "
                      f"when they have left {left / MIB:.1f} MiB, after some traffic {after[-1][0] / MIB:.1f} MiB, {after[-1][1]} files")
            for memory, files_left in after:
                expect(files_left <= before[1] + MORE_FILES, f"{files_left} files, {before[1]} before")
                expect(memory <= before[0] + MOST_LEFT, f"{memory / MIB:.1f} MiB, {before[0] / MIB:.1f} before")
            expect(after[-1][0] <= after[0][0] + MOST_GROWTH, "memory grows from one crowd to the next")
            print("a crowd: passed")
        except Failed as failed:
            sys.exit(f"a crowd: {failed}")
        finally:
            for process in reversed(started):
                process.stop()


if __name__ == "__main__":
    main()
