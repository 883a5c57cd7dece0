#!/usr/bin/env python3
"""What an operator sees of a real gateway in a real Prometheus: the scrape, the dashboard, the alerts.

    tests/real/watched.py [target/release/tracegate] [WORD…]

Prometheus scrapes by TLS and with a token, as in production. Every query of the dashboard in deploy/ is asked and must
have something to show; the alert rules in deploy/ are unit-tested by promtool, then evaluated over a gateway that is
well, and over one that is not. Only for that are their windows shortened, from days and hours to seconds: the
expressions, thresholds and labels are the shipped ones. Words choose the sentences whose names contain one of them.
Needs Linux, Python 3.9 and from Debian: prometheus openssl.
"""

import http.client
import json
import re
import socketserver
import ssl
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from collector import Collector
from stage import PROJECT, Failed, Process, eventually, expect, free_port, needed, run

DEPLOY = PROJECT / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yml"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "tracegate.json"
CERTIFICATE = PROJECT / "certs" / "gateway.pem"
KEY = PROJECT / "certs" / "gateway-key.pem"
SHORTER = {"5m": "5s", "10m": "6s", "30m": "8s", "1h": "10s", "2h": "12s", "6h": "14s", "1d": "16s", "3d": "18s"}
"""What becomes of the windows in brackets; the order stays."""


class Service:
    """An origin that does what the path says: /ok, /fail, /reset, /wait, /events; or takes spans. Ill, it says 503."""

    def __init__(self, port=0, heard=None):
        service = self
        self.ill = False
        heard = [] if heard is None else heard

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                heard.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                del heard[:-100]
                if self.path == "/reset":
                    self.close_connection = True
                elif self.path == "/events":
                    self.send_response(200)
                    self.send_header("content-type", "text/event-stream")
                    self.send_header("connection", "close")
                    self.end_headers()
                    try:
                        while not service.over.wait(0.5):
                            self.wfile.write(b"data: made\n\n")
                    except OSError:
                        pass
                    self.close_connection = True
                else:
                    if self.path == "/wait":
                        time.sleep(0.3)
                    status = 503 if self.path == "/fail" or service.ill else 200
                    self.send_response(status)
                    body = b"" if self.path == "/v1/traces" else b"ok"
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def do_POST(self):
                self.rfile.read(int(self.headers["content-length"]))
                self.do_GET()

            def log_message(self, *_):
                pass

        self.over = threading.Event()
        self.http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.http.daemon_threads = True
        self.http.handle_error = lambda *_: None  # connections that the gateway or a client has broken off
        self.port = self.http.server_port
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def stop(self):
        self.over.set()
        self.http.shutdown()
        self.http.server_close()


class Logstash:
    """Reads lines and forgets them."""

    def __init__(self):
        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                for _ in self.rfile:
                    pass

        self.tcp = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.tcp.daemon_threads = True
        self.port = self.tcp.server_address[1]
        threading.Thread(target=self.tcp.serve_forever, daemon=True).start()

    def stop(self):
        self.tcp.shutdown()
        self.tcp.server_close()


class Gateway(Process):
    """The built binary with these tables, admin by TLS and behind tokens that it has made itself."""

    def __init__(self, name, binary, directory, collector, tables):
        self.directory = directory / name
        self.directory.mkdir()
        self.binary = binary
        self.plain, self.secure, self.admin = free_port(), free_port(), free_port()
        self.token, scraper = self.made_token("metrics", "prometheus")
        self.configuration = self.directory / "routes.toml"
        self.configuration.write_text(f"""
[listeners.plain]
address = "127.0.0.1:{self.plain}"

[listeners.secure]
address = "127.0.0.1:{self.secure}"
tls = {{ certificate_file = "{CERTIFICATE}", key_file = "{KEY}" }}

[admin]
address = "127.0.0.1:{self.admin}"
tls = {{ certificate_file = "{CERTIFICATE}", key_file = "{KEY}" }}
{scraper}
[telemetry.otlp]
endpoint = "{collector.url}"
protocol = "http/protobuf"
delay = "100ms"
give_up_after = "1s"

{tables}
""")
        run(binary, "check", "--config", self.configuration)
        super().__init__(f"gateway-{name}", [binary, "--config", self.configuration], self.directory)
        self.listens(self.admin)
        self.listens(self.plain)

    def made_token(self, role, name):
        """A token, and what the file gets of it."""
        token, _, rest = run(self.binary, "token", "new", "--role", role, "--name", name).partition("\n")
        return token, rest

    def ask(self, path, method="GET", body=None, tls=False):
        """The status, or None where there was no answer."""
        if tls:
            trust = ssl.create_default_context(cafile=CERTIFICATE)
            connection = http.client.HTTPSConnection("127.0.0.1", self.secure, timeout=10, context=trust)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.plain, timeout=10)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()


class Prometheus(Process):
    """Prometheus as Debian has it, with the shipped rules in shortened time."""

    def __init__(self, name, directory, gateway):
        home = directory / name
        home.mkdir()
        self.port = free_port()
        rules = re.sub(r"\[(\w+)\]", lambda window: f"[{SHORTER[window[1]]}]", RULES.read_text())
        (home / "rules.yml").write_text(re.sub(r"\bfor: \d+[mh]", "for: 1s", rules))
        (home / "token").write_text(gateway.token)
        (home / "wrong").write_text(gateway.token[:-1])
        job = f"""
    scheme: https
    tls_config: {{ ca_file: {CERTIFICATE}, server_name: localhost }}
    static_configs: [{{ targets: ["127.0.0.1:{gateway.admin}"] }}]"""
        configuration = self.configuration = home / "prometheus.yml"
        configuration.write_text(f"""
global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}
rule_files: [rules.yml]
scrape_configs:
  - job_name: tracegate{job}
    authorization: {{ credentials_file: token }}
  - job_name: stranger{job}
    scrape_interval: 10s    # more than ten wrong tokens in a minute are answered 429
    authorization: {{ credentials_file: wrong }}
""")
        run("promtool", "check", "config", configuration)
        super().__init__(name, [
            "prometheus", "--config.file", configuration, "--storage.tsdb.path", home / "data",
            "--web.listen-address", f"127.0.0.1:{self.port}", "--enable-feature=exemplar-storage",
        ], home)
        self.listens(self.port)

    def api(self, path, **parameters):
        self.expect_alive()
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/{path}?{query}", timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            expect(error.code == 503, f"{error.code} to {path} {parameters}: {error.read().decode()}")
            return {}

    def value(self, query):
        """What the query yields, by its labels; what is no number is left out."""
        found = self.api("query", query=query).get("result", [])
        return {json.dumps(one["metric"]): float(one["value"][1]) for one in found if one["value"][1] != "NaN"}

    def firing(self):
        return {alert["labels"]["alertname"]: alert for alert in self.api("alerts").get("alerts", [])
                if alert["state"] == "firing" and alert["labels"].get("job") != "stranger"}

    def last_error(self, job):
        targets = self.api("targets").get("activeTargets", [])
        return next((target["lastError"] for target in targets if target["labels"]["job"] == job), "")


class Stage:
    def __init__(self, binary, directory):
        self.binary, self.directory, self.left = binary, directory, []

    def keep(self, one):
        self.left.append(one)
        return one

    def set_up(self):
        self.collector = Collector()
        self.well, self.ill, self.logstash = (self.keep(one) for one in (Service(), Service(), Logstash()))
        self.ill.ill = True
        self.busy = self.keep(Gateway("busy", self.binary, self.directory, self.collector, f"""
[telemetry.logstash]
address = "tcp://127.0.0.1:{self.logstash.port}"

[upstreams.well]
endpoints = ["http://localhost:{self.well.port}"]
health = {{ path = "/ok", interval = "500ms" }}
retry_budget = "off"

[upstreams.ill]
endpoints = ["http://127.0.0.1:{self.well.port}", "http://127.0.0.1:{self.ill.port}"]
outliers = {{ ejection = "1s" }}

[upstreams.away]
endpoints = ["http://127.0.0.1:{free_port()}"]
health = {{ path = "/ok", interval = "500ms", fall = 1 }}

[upstreams.certified]
endpoints = ["https://127.0.0.1:1"]
tls = {{ ca_file = "{CERTIFICATE}", certificate_file = "{CERTIFICATE}", key_file = "{KEY}" }}

[routes.certified]
match = {{ path = "/certified" }}
upstream = "certified"

[upstreams.narrow]
endpoints = ["http://127.0.0.1:{self.well.port}"]
breaker.requests = 1

[rate_limits.few]
requests = 1

[routes.well]
match = {{ path = "/well/{{*rest}}" }}
upstream = "well"
strip_prefix = "/well"
retry.statuses = [503]

[routes.ill]
match = {{ path = "/ill/{{*rest}}" }}
upstream = "ill"
strip_prefix = "/ill"

[routes.away]
match = {{ path = "/away" }}
upstream = "away"

[routes.narrow]
match = {{ path = "/narrow/{{*rest}}" }}
upstream = "narrow"
strip_prefix = "/narrow"

[routes.few]
match = {{ path = "/few" }}
upstream = "well"
rewrite_path = "/ok"
rate_limit = "few"

[routes.small]
match = {{ path = "/small" }}
upstream = "well"
rewrite_path = "/ok"
limits.body = "10B"
"""))
        self.prometheus = self.keep(Prometheus("prometheus-busy", self.directory, self.busy))

    def close(self):
        for one in reversed(self.left):
            one.stop()
        self.collector.close()


class Traffic:
    """A bit of everything, again and again, until the block is left."""

    def __init__(self, asks):
        self.asks, self.over = asks, threading.Event()

    def __enter__(self):
        self.threads = [threading.Thread(target=self.again, args=(ask,), daemon=True) for ask in self.asks]
        for thread in self.threads:
            thread.start()
        return self

    def again(self, ask):
        while not self.over.wait(0.02):
            ask()

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join(15)


def promtool_lets_every_alert_fire_and_stay_silent(stage):
    run("promtool", "check", "rules", RULES)
    run("promtool", "test", "rules", DEPLOY / "prometheus" / "rules-test.yml")
    alerts = re.findall(r"- alert: (\w+)", RULES.read_text())
    cases = (DEPLOY / "prometheus" / "rules-test.yml").read_text().split("  - name: ")[1:]
    for alert in alerts:
        of = [case for case in cases if f"alertname: {alert}\n" in case]
        silent = sum("exp_alerts: []" in case for case in of)
        expect(0 < silent < len(of), f"{alert}: {len(of)} cases, {silent} of them silent")
    pages = re.findall(r"runbook: (\S+)", RULES.read_text())
    expect(len(pages) == len(alerts), f"{len(pages)} runbooks for {len(alerts)} alerts")
    for page in pages:
        expect((PROJECT / page).is_file(), f"{page} is not there")
    told = [alert for alert in alerts if not any(alert in (PROJECT / page).read_text() for page in set(pages))]
    expect(not told, f"no runbook names {told}")
    return f"{len(alerts)} alerts, {len(cases)} cases, {len(set(pages))} runbooks"


def prometheus_scrapes_with_a_token_and_not_without(stage):
    eventually("the gateway is up", lambda: stage.prometheus.value('up{job="tracegate"} == 1'))
    error = eventually("the stranger's error", lambda: stage.prometheus.last_error("stranger"))
    expect("401" in error, error)
    expect(stage.prometheus.value('up{job="stranger"}') and not stage.prometheus.value('up{job="stranger"} == 1'), "up")
    expect(not stage.prometheus.value('tracegate_build_info{job="stranger"}'), "the stranger has seen metrics")
    return f"a token that is wrong by a letter: {error}"


def every_query_of_the_dashboard_has_something_to_show(stage):
    gateway, dashboard = stage.busy, json.loads(DASHBOARD.read_text())
    queries = [(panel["title"], target["expr"]) for panel in dashboard["panels"] for target in panel.get("targets", [])]
    queries += [(one["name"], one["expr"]) for one in dashboard["annotations"]["list"]]
    expect(len(queries) > 40, f"{len(queries)} queries")
    metrics = set(re.findall(r"\b(?:tracegate|http|process)_\w+", " ".join(query for _, query in queries)))
    asks = [lambda path=path, tls=tls: gateway.ask(path, tls=tls) for path, tls in [
        ("/well/ok", True), ("/well/ok", False), ("/well/fail", False), ("/well/reset", False), ("/ill/ok", False),
        ("/away", False), ("/few", False), ("/nowhere", False), ("/narrow/wait", False), ("/narrow/wait", False)]]
    asks += [lambda: gateway.ask("/small", "POST", b"x" * 100), lambda: gateway.ask("/well/fail", "POST", b"x")]
    stream = http.client.HTTPConnection("127.0.0.1", gateway.plain, timeout=10)
    stream.request("GET", "/well/events")
    stream.getresponse().read(5)
    with Traffic(asks):
        left = dict.fromkeys(queries)
        end = time.monotonic() + 60
        while left and time.monotonic() < end:
            # a reload, which the annotations mark, and one that is refused
            text = gateway.configuration.read_text()
            gateway.configuration.write_text(text + f"\n# {len(text)}\n[routes.more_{len(text)}]\n"
                                             f'match.path = "/more/{len(text)}"\nrespond.status = 204\n')
            time.sleep(2)
            for title, query in list(left):
                filled = query.replace("$__rate_interval", "15s").replace("$__range", "60s")
                filled = re.sub(r"\$(job|instance|route)\b", ".*", filled)
                expect("$" not in filled, f"{title}: {filled}")
                if stage.prometheus.value(filled):
                    del left[title, query]
    stream.close()
    expect(not left, "nothing to show: " + "; ".join(f"{title}: {query}" for title, query in left))
    for variable in dashboard["templating"]["list"][1:]:
        selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"]).groups()
        selector = re.sub(r"\$(job|instance|route)\b", ".*", selector)
        values = stage.prometheus.api(f"label/{label}/values", **{"match[]": selector})
        expect(any(values), f"{variable['name']}: {values}")
    known = set(stage.prometheus.api("label/__name__/values"))
    named = set(re.findall(r"(?<![.\w])tracegate_[a-z_]+(?=[{\s\[)])", RULES.read_text())) - {"tracegate_route", "tracegate_endpoint"}
    expect(named and named <= known, f"the rules name what no gateway has: {named - known}")
    return f"{len(queries)} queries of {len(metrics)} metrics; the rules name {len(named)}, all there"


def what_is_provoked_fires_its_own_alert_and_nothing_else(stage):
    receiver, service, told = stage.keep(Service()), stage.keep(Service()), []
    receiver.url = f"http://127.0.0.1:{receiver.port}"
    gateway = stage.keep(Gateway("calm", stage.binary, stage.directory, receiver, f"""
[reload]
watch = "100ms"

[upstreams.shop]
endpoints = ["http://127.0.0.1:{service.port}"]
health = {{ path = "/ok", interval = "200ms", timeout = "200ms", fall = 1, rise = 1 }}

[defaults.route]
upstream = "shop"
retry = "off"

[routes.order_pay]
match = {{ path = "/pay/{{*rest}}" }}
strip_prefix = "/pay"

[routes.order_read]
match = {{ path = "/read" }}
rewrite_path = "/ok"
"""))
    prometheus = stage.keep(Prometheus("prometheus-calm", stage.directory, gateway))
    paying = {"path": "/pay/ok"}

    def fires(what, expected, seconds=40):
        begun = time.monotonic()
        firing = {}
        while not expected <= set(firing) and time.monotonic() < begun + seconds:
            time.sleep(0.2)
            firing = prometheus.firing()
        expect(set(firing) == expected, f"{what}: {sorted(firing)} instead of {sorted(expected)}")
        told.append(f"{what}: {', '.join(sorted(expected))} after {time.monotonic() - begun:.0f} s")
        return firing

    def quiet():
        eventually("no alert fires any more", lambda: prometheus.value("up == 1") and not prometheus.firing(), 60)

    with Traffic([lambda: gateway.ask(paying["path"]), lambda: gateway.ask("/read")]):
        eventually("traffic is seen", lambda: prometheus.value('rate(tracegate_requests_total[10s]) > 1'))
        # as long as the longest window of a rule
        time.sleep(20)
        expect(not prometheus.firing(), f"all is well, and these fire: {prometheus.firing()}")

        paying["path"] = "/pay/fail"
        both = {"TracegateErrorBudgetBurnsFast", "TracegateErrorBudgetBurnsSlowly"}
        firing = fires("payments fail", both)
        for alert in firing.values():
            expect(alert["labels"]["tracegate_route"] == "order_pay", f"the wrong route: {alert}")
        paying["path"] = "/pay/ok"
        quiet()

        text = gateway.configuration.read_text()
        gateway.configuration.write_text(text.replace("rewrite_path", "rewrite_pth"))
        fires("a key is misspelt", {"TracegateReloadRefused"})
        gateway.configuration.write_text(text)
        quiet()

        # given up after a second
        receiver.ill = True
        fires("the receiver says that it has no time", {"TracegateTelemetryLost"})
        receiver.ill = False
        quiet()
    service.ill = True
    fires("the shop says that it is ill", {"TracegateEndpointDown", "TracegateUpstreamDown"})
    gateway.stop()
    fires("the gateway is gone", {"TracegateNotScraped"}, 60)
    return "; ".join(told)


def the_door_of_the_stage_lets_people_in_by_their_role(stage):
    """deploy/routes.toml and deploy/make-secrets.sh as containers have them, but for addresses and paths."""
    home = stage.directory / "door"
    home.mkdir()
    run(DEPLOY / "make-secrets.sh", home / "secrets")
    seen = []
    service = stage.keep(Service(heard=seen))
    metrics = free_port()
    behind = stage.keep(Process("prometheus-door", [
        "prometheus", "--config.file", stage.prometheus.configuration, "--storage.tsdb.path", home / "data",
        "--web.listen-address", f"127.0.0.1:{metrics}", "--web.route-prefix=/prometheus",
        "--web.external-url=https://localhost:8443/prometheus/",
    ], home))
    behind.listens(metrics)
    text = (DEPLOY / "routes.toml").read_text().replace('"/secrets/', f'"{home}/secrets/').replace('"/audit/', f'"{home}/')
    ports = {name: free_port() for name in ("0.0.0.0:8443", "0.0.0.0:8080", "0.0.0.0:9901", "127.0.0.1:9902")}
    for name, port in ports.items():
        text = text.replace(f'"{name}"', f'"127.0.0.1:{port}"')
    text = text.replace("http://prometheus:9090", f"http://127.0.0.1:{metrics}")
    text = text.replace("http://jaeger:4317", f"http://127.0.0.1:{free_port()}")
    text = re.sub(r"http://(shop|mes|jaeger|grafana|kibana):\d+", f"http://127.0.0.1:{service.port}", text)
    (home / "routes.toml").write_text(text)
    gateway = stage.keep(Process("gateway-door", [
        stage.binary, "--config", home / "routes.toml", "--config", home / "secrets" / "tokens.toml"], home))
    gateway.listens(ports["0.0.0.0:8443"])

    def asked(path, role=None, port="0.0.0.0:8443", **fields):
        trust = ssl.create_default_context(cafile=home / "secrets" / "ca.pem")
        if role:
            trust.load_cert_chain(home / "secrets" / f"{role}.pem", home / "secrets" / f"{role}-key.pem")
        connection = http.client.HTTPSConnection("localhost", ports[port], timeout=10, context=trust)
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in fields.items()})
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status

    query = "/prometheus/api/v1/query?query=up"
    for path, expected in [(query, (401, 403, 200)), ("/grafana/ok", (401, 200, 200)), ("/jaeger/ok", (401, 200, 200)),
                           ("/kibana/ok", (401, 200, 200)), ("/shop/ok", (200, 200, 200)),
                           ("/mes/orders/o-1/price", (404, 404, 404))]:
        got = tuple(asked(path, role, x_webauth_user="admin") for role in (None, "support", "developer"))
        expect(got == expected, f"{path}: nobody, support and developer get {got}, expected {expected}")
    users = {fields.get("x-webauth-user") for path, fields in seen if path == "/grafana/ok"}
    expect(users == {"support", "developer"}, f"Grafana is told {users}")
    expect(not any("x-webauth-user" in fields for path, fields in seen if path == "/ok"), "the Shop is told a user")
    for name, expected in [("prometheus", (200, 403)), ("support", (403, 200)), ("developer", (200, 200))]:
        token = (home / "secrets" / f"{name}-token").read_text()
        got = tuple(asked(path, port="0.0.0.0:9901", authorization=f"Bearer {token}") for path in ("/metrics", "/status"))
        expect(got == expected, f"{name}: /metrics and /status answer {got}, expected {expected}")
    return "nobody, support and developer before four tools; Grafana is told the role, whatever a client says"


SENTENCES = [
    promtool_lets_every_alert_fire_and_stay_silent,
    prometheus_scrapes_with_a_token_and_not_without,
    every_query_of_the_dashboard_has_something_to_show,
    the_door_of_the_stage_lets_people_in_by_their_role,
    what_is_provoked_fires_its_own_alert_and_nothing_else,
]


def main():
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        sys.exit(__doc__)
    binary = Path(arguments[0] if arguments else PROJECT / "target/release/tracegate").resolve()
    if not binary.is_file():
        sys.exit(f"{binary} is not there: cargo build --release")
    needed("promtool", "prometheus")
    chosen = [test for test in SENTENCES if not arguments[1:] or any(word in test.__name__ for word in arguments[1:])]
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="tracegate-watched-") as directory:
        stage = Stage(binary, Path(directory))
        try:
            stage.set_up()
            for test in chosen:
                begun, name = time.monotonic(), test.__name__.replace("_", " ")
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
