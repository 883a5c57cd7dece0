"""What the measurements stand on: processes pinned to cores, their CPU time and memory, the tools that load them.

The gateway has the first core; the upstream (nginx), the collector and the load have the second. CPU per request is
what the gateway's processes took, user and system, the export of what was still queued included, over the requests
that were answered: on a noisy machine the figure to trust, and ratios within one round more than figures.
"""

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
CERTIFICATE, KEY = PROJECT / "certs/gateway.pem", PROJECT / "certs/gateway-key.pem"
UPSTREAM, COLLECTOR, GATEWAY, ADMIN = 19000, 14317, 18080, 19901
TOKEN = secrets.token_hex(32)
"""Opens everything of tracegate's admin."""

TICKS = os.sysconf("SC_CLK_TCK")
PATH = "/shop/orders/42"


class Failed(Exception):
    """What did not work."""


class Process:
    """A process with all its children, on the cores it was given."""

    def __init__(self, name, command, cores, directory, environment=None):
        self.log = directory / f"{name}.log"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                ["taskset", "-c", cores, *map(str, command)],
                env={**os.environ, **(environment or {})},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def tree(self):
        found, waiting = [], [self.process.pid]
        while waiting:
            pid = waiting.pop()
            found.append(pid)
            try:
                for task in os.listdir(f"/proc/{pid}/task"):
                    children = Path(f"/proc/{pid}/task/{task}/children").read_text()
                    waiting += [int(child) for child in children.split()]
            except OSError:
                pass
        return set(found)

    def cpu(self):
        """Seconds of CPU so far, user and system."""
        total = 0
        for pid in self.tree():
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                total += int(fields[11]) + int(fields[12])
            except OSError:
                pass
        return total / TICKS

    def memory(self):
        """Resident memory now, in MiB."""
        total = 0
        for pid in self.tree():
            try:
                found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
                total += int(found.group(1)) if found else 0
            except OSError:
                pass
        return total / 1024

    def stop(self):
        for kind in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, kind)
                self.process.wait(15)
                return
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


class Stage:
    """The upstream and the collector, and a directory for everything; gone when left."""

    def __init__(self, collector):
        self.directory = Path(tempfile.mkdtemp(prefix="bench"))
        self.directory.chmod(0o755)
        self.collector = collector
        self.processes = []

    def __enter__(self):
        big = self.directory / "big"
        big.mkdir()
        (big / "1m").write_bytes(os.urandom(1 << 20))
        configuration = self.directory / "upstream.conf"
        body = json.dumps({"order": "x" * 1000})
        configuration.write_text(f"""daemon off; worker_processes 1; pid {self.directory}/upstream.pid;
events {{ worker_connections 16384; }}
http {{
    access_log off; keepalive_requests 100000000; keepalive_timeout 600s;
    client_body_temp_path {self.directory}/b; proxy_temp_path {self.directory}/p; fastcgi_temp_path {self.directory}/f;
    uwsgi_temp_path {self.directory}/u; scgi_temp_path {self.directory}/s;
    server {{
        listen 127.0.0.1:{UPSTREAM} backlog=4096;
        location / {{ default_type application/json; return 200 '{body}'; }}
        location /big {{ root {self.directory}; }}
    }}
}}
""")
        self.processes = [
            Process("upstream", ["nginx", "-c", configuration, "-e", "stderr"], "1", self.directory),
            Process("collector", [self.collector, str(COLLECTOR)], "1", self.directory),
        ]
        for port, process in zip((UPSTREAM, COLLECTOR), self.processes):
            listens(port, process)
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


def listens(port, process, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 0.3).close()
            return
        except OSError:
            if process.process.poll() is not None:
                break
            time.sleep(0.005)
    raise Failed(f"nobody listens on {port}: {process.log.read_text(errors='replace')[-600:]}")


def fetch(port, path, method="GET", encoding="identity"):
    headers = {"accept-encoding": encoding}
    if port == ADMIN:
        headers["authorization"] = f"Bearer {TOKEN}"
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers, method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read()


def spans():
    return json.loads(fetch(COLLECTOR, "/count"))["spans"]


def wrk(connections, seconds, path=PATH, scheme="http", cores="1"):
    """Requests answered, requests a second, p50 and p99 in ms, and what went wrong."""
    url = f"{scheme}://127.0.0.1:{GATEWAY}{path}"
    command = ["taskset", "-c", cores, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    percentile = dict(re.findall(r"(50|99)%\s+(\S+)", said))
    wrong = re.findall(r"(?:Non-2xx or 3xx responses|Socket errors): (.*)", said)
    return {
        "requests": int(re.search(r"(\d+) requests in", said).group(1)),
        "rps": float(re.search(r"Requests/sec:\s+([\d.]+)", said).group(1)),
        "p50": milliseconds(percentile["50"]),
        "p99": milliseconds(percentile["99"]),
        "wrong": "; ".join(wrong),
    }


def h2load(connections, seconds, directory, http1=False, scheme="http", rate=None, path=PATH):
    """The same by h2load: HTTP/2 over TLS with four streams a connection, or HTTP/1.1 at a fixed rate in total."""
    log = directory / "h2load.log"
    log.unlink(missing_ok=True)
    command = ["taskset", "-c", "1", "h2load", "-c", connections, "-D", seconds, f"--log-file={log}"]
    command += ["--h1"] if http1 else ["-m", 4]
    command += [f"--rps={rate / connections}"] if rate else []
    command += [f"{scheme}://127.0.0.1:{GATEWAY}{path}"]
    said = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout
    taken = sorted(int(line.split("\t")[2]) for line in log.read_text().splitlines())
    if not taken:
        raise Failed(f"h2load had no answer: {said[-400:]}")
    done = re.search(r"requests: .* (\d+) succeeded, (\d+) failed, (\d+) errored", said)
    wrong = int(done.group(2)) + int(done.group(3))
    return {
        "requests": len(taken),
        "rps": len(taken) / seconds,
        "p50": taken[len(taken) // 2] / 1000,
        "p99": taken[len(taken) * 99 // 100] / 1000,
        "wrong": f"{wrong} failed" if wrong else "",
    }


def milliseconds(text):
    number, unit = re.fullmatch(r"([\d.]+)(\w+)", text).groups()
    return float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}[unit]
