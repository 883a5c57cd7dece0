"""What the suite stands on: the gateway as a process, real servers behind it, and the tools that ask it."""

import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


class Failed(Exception):
    """What was expected and what came instead."""


def expect(condition, message):
    if not condition:
        raise Failed(message)


def eventually(what, condition, seconds=30):
    """Waits until the condition holds and returns its value."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        expect(time.monotonic() < end, f"{what}: not within {seconds} s")
        time.sleep(0.05)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def raise_file_limit():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def clean_environment():
    """Nothing of the caller's that would change the gateway or the tools."""
    foreign = re.compile(r"OTEL_|TRACEGATE_|RUST_LOG|TOKIO_WORKER|.*_proxy$", re.IGNORECASE)
    return {name: value for name, value in os.environ.items() if not foreign.match(name)}


def run(*command, seconds=120, send=None):
    """Runs a tool to its end and returns what it printed."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, timeout=seconds, env=clean_environment(), input=send
    )
    said = done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace")
    expect(done.returncode == 0, f"{command[0]} ended with {done.returncode}: {said.strip()[-800:]}")
    return said


def needed(*tools):
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    os.environ["PATH"] = path
    missing = [tool for tool in tools if not shutil.which(tool, path=path)]
    if missing:
        sys.exit(f"not found: {', '.join(missing)}. On Debian: apt-get install nginx wrk nghttp2-client curl prometheus "
                 "redis-server")


class Process:
    """A process of ours. It is stopped when the stage is left, whatever happened."""

    def __init__(self, name, command, directory):
        self.name, self.output, self.errors = name, directory / f"{name}.out", directory / f"{name}.err"
        with open(self.output, "wb") as out, open(self.errors, "wb") as err:
            self.process = subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                cwd=directory, env=clean_environment(),
            )

    def listens(self, port):
        def connects():
            self.expect_alive()
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return True
            except OSError:
                return False

        eventually(f"{self.name} listens on {port}", connects)

    def expect_alive(self):
        """A process that has ended by itself says why; a negative code is the signal that ended it."""
        code = self.process.poll()
        expect(code is None, f"{self.name} has ended with {code}: {self.errors.read_text()[-800:].strip()}")

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Nginx(Process):
    """nginx as Debian has it: files, uploads by PUT, and a file that takes its time."""

    def __init__(self, directory, files):
        self.port = free_port()
        self.uploads = directory / "uploads"
        self.uploads.mkdir()
        temporary = directory / "nginx"
        temporary.mkdir()
        user = "user root;" if os.geteuid() == 0 else ""
        configuration = directory / "nginx.conf"
        configuration.write_text(f"""
{user}
daemon off;
worker_processes 1;
pid {temporary}/pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {temporary}/body;
    proxy_temp_path {temporary}/proxy;
    fastcgi_temp_path {temporary}/fastcgi;
    uwsgi_temp_path {temporary}/uwsgi;
    scgi_temp_path {temporary}/scgi;
    server {{
        listen 127.0.0.1:{self.port} backlog=1024;
        root {files};
        location /uploads/ {{ alias {self.uploads}/; dav_methods PUT; client_max_body_size 0; }}
        location /slowly/ {{ alias {files}/; limit_rate 100k; }}
    }}
}}
""")
        super().__init__("nginx", ["nginx", "-p", directory, "-c", configuration, "-e", "stderr"], directory)
        self.listens(self.port)


class PythonServer(Process):
    """`python3 -m http.server`: HTTP/1.0, a connection a request."""

    def __init__(self, directory, files):
        self.port = free_port()
        command = [sys.executable, "-m", "http.server", self.port, "--bind", "127.0.0.1", "--directory", files]
        super().__init__("python-http-server", command, directory)
        self.listens(self.port)


class Prometheus(Process):
    """Prometheus as Debian has it: scrapes one gateway every second and stores exemplars."""

    def __init__(self, directory, gateway):
        self.port = free_port()
        configuration = directory / "prometheus.yml"
        configuration.write_text(f"""
global: {{ scrape_interval: 1s, scrape_timeout: 1s }}
scrape_configs:
  - job_name: tracegate
    static_configs: [{{ targets: ["127.0.0.1:{gateway.admin}"] }}]
""")
        super().__init__("prometheus", [
            "prometheus", "--config.file", configuration, "--storage.tsdb.path", directory / "prometheus",
            "--web.listen-address", f"127.0.0.1:{self.port}", "--enable-feature=exemplar-storage",
        ], directory)
        self.listens(self.port)

    def ask(self, path, **parameters):
        """What its API has to say; nothing while it is still starting."""
        self.expect_alive()
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/{path}?{query}", timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            expect(error.code == 503, f"prometheus answers {error.code} to {path}")
            return {}


class Gateway(Process):
    """The built binary, with a configuration of its own."""

    def __init__(self, name, binary, directory, collector, nginx, python, more=""):
        self.directory = directory / name
        self.directory.mkdir()
        self.plain, self.secure, self.admin = free_port(), free_port(), free_port()
        configuration = self.directory / "routes.toml"
        configuration.write_text(f"""
[listeners.plain]
address = "127.0.0.1:{self.plain}"

[listeners.secure]
address = "127.0.0.1:{self.secure}"
tls = {{ certificate_file = "{PROJECT}/certs/gateway.pem", key_file = "{PROJECT}/certs/gateway-key.pem" }}

[admin]
address = "127.0.0.1:{self.admin}"

[telemetry.otlp]
endpoint = "{collector.url}"
protocol = "http/protobuf"
queue = 131072     # the collector is written in Python; what it is slow to take has to wait somewhere
batch = 1024

[upstreams.nginx]
service = "nginx"
endpoints = ["http://127.0.0.1:{nginx.port}"]

[upstreams.python]
service = "python-http-server"
endpoints = ["http://127.0.0.1:{python.port}"]

[defaults.route]
timeouts.request = "5m"     # for the large bodies on slow machines

[routes.nginx]
match = {{ path = "/nginx/{{*rest}}" }}
upstream = "nginx"
strip_prefix = "/nginx"

[routes.python]
match = {{ path = "/python/{{*rest}}" }}
upstream = "python"
strip_prefix = "/python"
{more}
""")
        run(binary, "check", "--config", configuration)
        super().__init__("gateway", [binary, "--config", configuration], self.directory)
        self.listens(self.admin)
        eventually("the gateway is ready", lambda: self.ready() == 200)

    def url(self, path, tls=False):
        return f"https://127.0.0.1:{self.secure}{path}" if tls else f"http://127.0.0.1:{self.plain}{path}"

    def page(self, path, **fields):
        self.expect_alive()
        request = urllib.request.Request(f"http://127.0.0.1:{self.admin}{path}", headers=fields)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read().decode()

    def ready(self):
        """The status of /readyz, or None if nobody answers."""
        try:
            self.page("/readyz")
            return 200
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None

    def status(self):
        return json.loads(self.page("/status"))

    def metric(self, name, **labels):
        """The sum of a family's series that have these labels."""
        total = 0.0
        for line in self.page("/metrics").splitlines():
            if re.match(rf"{name}[{{ ]", line) and all(f'{key}="{value}"' in line for key, value in labels.items()):
                total += float(line.rsplit(" ", 1)[1])
        return int(total)

    def requests(self):
        return self.metric("tracegate_requests_total")

    def failures(self):
        """How many requests did not simply succeed, by reason."""
        found = {}
        for line in self.page("/metrics").splitlines():
            match = re.match(r'tracegate_requests_total\{.*tracegate_reason="([^"]+)".*\} (\d+)', line)
            if match:
                found[match[1]] = found.get(match[1], 0) + int(match[2])
        return found

    def settle(self):
        """Waits until nothing is in progress and every span has been exported or counted as dropped."""
        def settled():
            return self.metric("http_server_active_requests") == 0 and self.spans()["queued"] == 0

        eventually("the gateway settles", settled, 60)
        # counted a moment after the request has ended
        def accounted():
            spans = self.spans()
            made = self.requests() + self.metric("tracegate_endpoint_requests_total")
            return sum(spans.values()) == made and spans

        return eventually("every span is accounted for", accounted, 60)

    def spans(self):
        """What became of the spans at the collector, whatever the reasons."""
        sums = self.status()["telemetry"]["spans"]["otlp"]
        return {outcome: sum(sum_.values()) if isinstance(sum_, dict) else sum_ for outcome, sum_ in sums.items()}

    def memory(self, key):
        """VmRSS or VmHWM in bytes."""
        self.expect_alive()
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"^{key}:\s+(\d+) kB", text, re.MULTILINE)[1]) * 1024

    def forget_peak(self):
        """Sets VmHWM back to VmRSS (proc(5), clear_refs)."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def files(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def access_log(self):
        """What the access log says, line by line."""
        return [json.loads(line) for line in self.output.read_text().splitlines()]

    def ask_to_stop(self):
        self.process.send_signal(signal.SIGTERM)

    def ended(self, seconds=30):
        """Waits for the end and returns the exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failed(f"the gateway does not end within {seconds} s") from None


class Single(Gateway):
    """The built binary with one route, of every path, to one upstream."""

    def __init__(self, binary, directory, upstream, more=""):
        self.directory = directory / "single"
        self.directory.mkdir()
        self.port, self.admin = free_port(), free_port()
        (self.directory / "base.toml").write_text(f"""
[listeners.public]
address = "127.0.0.1:{self.port}"
[admin]
address = "127.0.0.1:{self.admin}"
[telemetry]
otlp = "off"
[upstreams.all]
endpoints = ["http://127.0.0.1:{upstream}"]
[routes.all]
match = {{ path = "/{{*rest}}" }}
upstream = "all"
""")
        (self.directory / "more.toml").write_text(more)
        command = [Path(binary).resolve(), "--config", "base.toml", "--config", "more.toml"]
        Process.__init__(self, "gateway", command, self.directory)
        self.listens(self.admin)
        eventually("the gateway is ready", lambda: self.ready() == 200)


class Redis(Process):
    """Redis as Debian has it, which keeps nothing."""

    def __init__(self, directory, port=None):
        self.port = port or free_port()
        command = ["redis-server", "--port", self.port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        super().__init__("redis", command, directory)
        self.listens(self.port)
