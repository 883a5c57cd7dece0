#!/usr/bin/env python3
"""The live page, driven as a person would: headless Chromium before a demo that runs, and before a gateway with tokens.

    tests/browser/run.py [target/release/tracegate] [--pictures DIRECTORY] [WORD…]

Words choose the sentences whose names contain one of them. --pictures takes screenshots, in both themes and at a
phone's width. Needs Python 3.9 or later with selenium, and from Debian: chromium chromium-driver. Only loopback addresses
and free ports; every wait is bounded; all that was started is stopped.
"""

import contextlib
import hashlib
import http.client
import http.server
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from selenium import webdriver
from selenium.webdriver import ActionChains
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import sentences  # noqa: E402
from sentences import PATIENCE, PROJECT, Demo, Failed, arguments, expect, stop, tell  # noqa: E402

TOKENS = {role: f"token of {role}" for role in ("support", "developer", "operator")}


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def eventually(what, holds, seconds=PATIENCE):
    return sentences.eventually(what, holds, seconds, passing=(StaleElementReferenceException, ConnectionError))


class Gateway:
    """A gateway with tokens before a small site, perhaps with TLS."""

    def __init__(self, binary, directory, site, more="", telemetry='otlp = "off"'):
        self.public, self.admin = free_port(), free_port()
        tokens = "".join(f"[admin.tokens.{role}]\nrole = '{role}'\nsha256 = '{hashlib.sha256(token.encode()).hexdigest()}'\n" for role, token in TOKENS.items())
        self.file = Path(directory) / f"{self.public}.toml"
        self.file.write_text(f"""
[listeners.public]
address = "127.0.0.1:{self.public}"
[admin]
address = "127.0.0.1:{self.admin}"
jaeger_url = "http://jaeger.example:16686/"
[telemetry]
access_log.enabled = false
{telemetry}
[shutdown]
drain_delay = "1ms"
[upstreams.site]
endpoints = ["http://127.0.0.1:{site}"]
[routes.site]
match.path = "/{{*rest}}"
upstream = "site"
[routes.order]
match.path = "/orders/{{order_id}}"
upstream = "site"
attributes = {{ "order.id" = {{ path = "order_id" }} }}
{more}
{tokens}""")
        self.process = subprocess.Popen([binary, "--config", self.file], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        eventually("the gateway is ready", lambda: self.ask("GET", "/readyz")[0] == 200)

    @property
    def page(self):
        return f"http://127.0.0.1:{self.admin}/"

    def ask(self, method, path, fields=(), body=None, port=None):
        connection = http.client.HTTPConnection("127.0.0.1", port or self.admin, timeout=PATIENCE)
        try:
            connection.request(method, path, body, dict(fields))
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def without(self, role):
        """Takes a token out of the file, which is watched."""
        text = self.file.read_text()
        self.file.write_text(re.sub(rf"\[admin\.tokens\.{role}\]\n[^[]*", "", text))

    def close(self):
        stop(self.process)


class Site:
    """A small site: a page with a style, a script and a picture; /orders/bad breaks."""

    FILES = {
        "/": ("text/html", "<!doctype html><title>site</title><link rel=stylesheet href=/a.css><script src=/a.js></script><img src=/a.svg><p id=said>"),
        "/a.css": ("text/css", "p { color: green }"),
        "/a.js": ("text/javascript", "addEventListener('load', () => { document.title = 'loaded' })"),
        "/a.svg": ("image/svg+xml", "<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'></svg>"),
    }

    def __init__(self):
        files = self.FILES

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                kind, text = files.get(self.path, ("text/plain", "ok"))
                self.send_response(500 if self.path == "/orders/bad" else 200)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()


class Browser:
    """One Chromium with a profile of its own."""

    def __init__(self, width=1360, height=900):
        self.profile = tempfile.mkdtemp(prefix="tracegate-browser-")
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or "chromium"
        for flag in ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
                     "disable-component-update", "disable-sync", "ignore-certificate-errors", "hide-scrollbars",
                     f"user-data-dir={self.profile}", f"window-size={width},{height}"):
            options.add_argument(f"--{flag}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
        self.driver.set_page_load_timeout(PATIENCE)

    def close(self):
        self.driver.quit()
        shutil.rmtree(self.profile, ignore_errors=True)

    def open(self, url):
        self.driver.get(url)

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector):
        return eventually(selector, lambda: next((it for it in self.all(selector) if it.is_displayed()), None))

    def text(self, selector="main"):
        return self.one(selector).text

    def says(self, text, selector="main", seconds=PATIENCE):
        eventually(f"{selector} says {text!r}", lambda: text in self.driver.find_element(By.CSS_SELECTOR, selector).text, seconds)

    def keys(self, *keys):
        """To whatever has the focus when they arrive: what had it a moment ago may have been drawn anew."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def script(self, text, *arguments):
        return self.driver.execute_script(text, *arguments)

    def at(self, fragment):
        eventually(f"the address has {fragment}", lambda: fragment in self.driver.current_url)

    def size(self, width, height):
        # narrower than a window may be
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600})

    def prefers(self, scheme):
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})

    def picture(self, file):
        self.driver.save_screenshot(str(file))

    def complaints(self):
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


# Sentences. Each gets the stage and a browser of its own.

def the_overview_ranks_routes_and_leads_to_the_trace_that_explains(stage, browser):
    browser.open(stage.demo.page)
    browser.says("order_create")
    expect("Routes is where one begins", browser.text("#nav a[aria-current]") == "Routes")
    eventually("a verdict", lambda: browser.all("section.verdict"))
    eventually("the figures of the demo's routes are there", lambda: any("ms" in row.text for row in browser.all("tr.row")), 30)
    browser.one("tr.row a.name").click()
    browser.at("#/routes/")
    eventually("three charts", lambda: len(browser.all("svg.chart")) == 3)
    browser.open(stage.demo.page + "#/traces?failed=true")
    browser.one("tr.row").click()
    browser.at("#/traces/")
    browser.says("Waterfall")
    expect("the waterfall draws", browser.all(".waterfall svg rect.server, .waterfall svg rect.failed"))
    expect("no complaint of the browser", not browser.complaints())


def traces_are_filtered_found_and_opened_as_a_waterfall(stage, browser):
    browser.open(stage.demo.page + "#/traces")
    eventually("exchanges", lambda: len(browser.all("tr.row")) > 5, 30)
    browser.script("const it = document.querySelector('select[name=route]'); it.value = 'order_read'; it.dispatchEvent(new Event('change', { bubbles: true }))")
    browser.at("route=order_read")
    eventually("only that route", lambda: (rows := browser.all("tr.row")) and all("order_read" in row.text for row in rows))
    order = eventually("an order's number", lambda: next((it.text for it in browser.all("td span.sub.mono[title='order.id']") if it.text), None))
    browser.keys(Keys.ESCAPE)
    browser.one("#find").send_keys(order, Keys.ENTER)
    browser.at("find=")
    eventually("all of that order", lambda: (rows := browser.all("tr.row")) and all(order in row.text for row in rows))
    browser.one("tr.row").click()
    browser.says("Waterfall")
    parts = [it.text for it in browser.all(".waterfall .label.part")]
    expect(f"the attempt's timing parts: {parts}", "waiting for the upstream" in parts)
    expect("its attributes", "order.id" in browser.text() and order in browser.text())


def an_error_arrives_while_one_looks(stage, browser):
    browser.open(f"{stage.gateway.page}#/traces")
    log_in(browser, "support")
    browser.says("Traces")
    browser.says("live", ".live")
    before = len(browser.all("tr.row"))
    status, _ = stage.gateway.ask("GET", "/orders/bad", port=stage.gateway.public)
    expect("the site breaks", status == 500)
    eventually("the error is there without a reload", lambda: len(browser.all("tr.row.fresh")) >= 1 and len(browser.all("tr.row")) > before, 5)
    expect("it says why", "upstream_status" in browser.text("tr.row"))
    browser.one("tr.row.fresh").click()
    browser.says("Waterfall")
    jaeger = browser.one("a[target=_blank]").get_attribute("href")
    expect(f"it leads to Jaeger: {jaeger}", re.fullmatch(r"http://jaeger\.example:16686/trace/[0-9a-f]{32}", jaeger))


def one_logs_in_with_a_token_and_out_again(stage, browser):
    browser.open(stage.gateway.page)
    browser.says("Log in")
    browser.one("#token").send_keys("wrong", Keys.ENTER)
    browser.says("this opens nothing here")
    log_in(browser, "operator")
    browser.says("operator", "#who")
    expect("scripts do not see the cookie", browser.script("return document.cookie") == "")
    cookie = browser.driver.get_cookie("tracegate")
    expect(f"the cookie's attributes: {cookie}", cookie["httpOnly"] and cookie["sameSite"] == "Strict")
    browser.keys("4")
    browser.says("Changes")
    browser.one("#logout").click()
    browser.says("Log in")
    expect("the cookie is gone", browser.driver.get_cookie("tracegate") is None)
    browser.open(stage.gateway.page + "#/system")
    browser.says("Log in")


def a_change_is_taken_only_from_the_page_itself(stage, browser):
    browser.open(stage.gateway.page)
    log_in(browser, "operator")
    browser.says("Routes")
    change = "return fetch('/api/maintenance', {method: 'POST', headers: {'content-type': 'application/json', ...arguments[0]}, body: '{\"route\":\"site\",\"maintenance\":true}'}).then(it => it.status)"
    expect("without the token for changes", browser.script(change, {}) == 403)
    expect("with a wrong one", browser.script(change, {"x-csrf-token": "guessed"}) == 403)
    cookie = browser.driver.get_cookie("tracegate")["value"]
    csrf = browser.script("return fetch('/api/me').then(it => it.json()).then(it => it.csrf)")
    fields = {"cookie": f"tracegate={cookie}", "content-type": "application/json", "x-csrf-token": csrf}
    body = '{"route":"site","maintenance":true}'
    status, _ = stage.gateway.ask("POST", "/api/maintenance", {**fields, "origin": "http://evil.example"}, body)
    expect("of a foreign origin", status == 403)
    # another site's page may send what it likes: it comes without the cookie, and is not answered
    browser.open(f"http://localhost:{stage.site.port}/")
    foreign = f"return fetch('{stage.gateway.page}api/maintenance', {{method: 'POST', mode: 'no-cors', credentials: 'include', body: '{{}}'}}).then(it => it.type, () => 'blocked')"
    expect("the browser shows nothing of the answer", browser.script(foreign) in ("blocked", "opaque"))
    status, _ = stage.gateway.ask("GET", "/", port=stage.gateway.public)
    expect("nothing was changed", status == 200)
    browser.open(stage.gateway.page + "#/system")
    browser.says("Changes")
    browser.script("const it = document.querySelector('#route'); it.value = 'site'; it.dispatchEvent(new Event('change', { bubbles: true }))")
    next(it for it in browser.all("button") if it.text == "Maintenance on").click()
    eventually("the page itself changes it", lambda: stage.gateway.ask("GET", "/", port=stage.gateway.public)[0] == 503)
    eventually("and back", lambda: next(it for it in browser.all("button") if it.text == "as in the file").click() is None)
    eventually("it serves again", lambda: stage.gateway.ask("GET", "/", port=stage.gateway.public)[0] == 200)


def a_reload_that_removes_the_token_ends_the_session(stage, browser):
    with contextlib.closing(Gateway(stage.binary, stage.directory, stage.site.port)) as gateway:
        browser.open(gateway.page)
        log_in(browser, "developer")
        browser.says("Routes")
        browser.says("live", ".live")
        gateway.without("developer")
        browser.says("Log in", seconds=30)


def lost_spans_are_told_above_every_view(stage, browser):
    away = f'otlp = {{ endpoint = "http://127.0.0.1:{free_port()}", delay = "50ms", timeout = "100ms", give_up_after = "200ms" }}'
    with contextlib.closing(Gateway(stage.binary, stage.directory, stage.site.port, telemetry=away)) as gateway:
        browser.open(gateway.page)
        log_in(browser, "developer")
        browser.says("Routes")
        expect("nothing is wrong yet", not browser.driver.find_element(By.ID, "alarm").is_displayed())
        expect("the site answers", gateway.ask("GET", "/", port=gateway.public)[0] == 200)
        browser.says("spans for otlp were lost", "#alarm", 30)
        for key, view in [("2", "traces"), ("3", "upstreams"), ("4", "system")]:
            browser.keys(key)
            browser.at(f"#/{view}")
            expect(f"it stands above {view}", browser.driver.find_element(By.ID, "alarm").is_displayed())


def everything_is_reached_by_keys(stage, browser):
    browser.open(stage.demo.page)
    eventually("rows", lambda: len(browser.all("tr.row")) > 2)
    browser.keys("2")
    browser.at("#/traces")
    eventually("exchanges", lambda: len(browser.all("tr.row")) > 2, 30)
    browser.keys("j")
    browser.keys("j")
    focused = browser.script("return document.activeElement.dataset.href")
    expect(f"the second row is focused: {focused}", focused and focused.startswith("#/traces/"))
    browser.keys("k")
    browser.keys(Keys.ENTER)
    browser.at("#/traces/")
    browser.says("Waterfall")
    browser.keys(Keys.ESCAPE)
    eventually("back at the list", lambda: browser.driver.current_url.endswith("#/traces"))
    browser.keys("?")
    browser.says("Next, previous row", "dialog")
    browser.keys(Keys.ESCAPE)
    browser.keys("/")
    expect("the search has the focus", browser.script("return document.activeElement.id") == "find")
    browser.keys(Keys.ESCAPE)
    theme = browser.script("return document.documentElement.dataset.theme")
    browser.keys("t")
    expect("the theme has changed", browser.script("return document.documentElement.dataset.theme") != theme)


def every_control_has_a_name_and_enough_contrast_in_both_themes(stage, browser):
    browser.open(stage.demo.page)
    for view, scheme in [("routes", "light"), ("traces", "dark"), ("system", "light"), ("system", "dark"), ("upstreams", "dark")]:
        browser.prefers(scheme)
        browser.open(f"{stage.demo.page}#/{view}")
        eventually("the view", lambda: browser.all("main table"))
        nameless = browser.script("""
            return [...document.querySelectorAll('button, input, select, a, svg[role=img]')].filter(it => it.checkVisibility() &&
                !(it.textContent.trim() || it.getAttribute('aria-label') || it.labels?.length)).map(it => it.outerHTML.slice(0, 120))""")
        expect(f"{view}: all have names: {nameless}", not nameless)
        faint = browser.script(CONTRAST)
        expect(f"{view} {scheme}: contrast of 4.5 or more: {faint}", not faint)


CONTRAST = """
const luminance = (colour) => { const [r, g, b] = colour.map(it => { it /= 255; return it <= .03928 ? it / 12.92 : ((it + .055) / 1.055) ** 2.4 }); return .2126 * r + .7152 * g + .0722 * b };
const parse = (text) => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return { rgb: [r, g, b], a } };
const ground = (it) => { for (; it; it = it.parentElement) { const style = getComputedStyle(it); const { rgb, a } = parse(style.backgroundColor); if (style.backgroundImage === 'none' && a === 1) return rgb } return parse(getComputedStyle(document.documentElement).backgroundColor).rgb };
const found = new Set();
for (const it of document.querySelectorAll('body *')) {
  if (!it.checkVisibility() || it.closest('svg') || ![...it.childNodes].some(node => node.nodeType === 3 && node.textContent.trim())) continue;
  const [one, other] = [luminance(parse(getComputedStyle(it).color).rgb), luminance(ground(it))].sort((a, b) => b - a);
  const contrast = (one + .05) / (other + .05);
  if (contrast < 4.5) found.add(`${it.tagName}.${it.className}: ${contrast.toFixed(2)} ${it.textContent.slice(0, 30)}`);
}
return [...found];
"""


def nothing_is_cut_off_at_the_width_of_a_phone(stage, browser):
    browser.size(375, 812)
    for view in ("routes", "traces", "upstreams", "system"):
        browser.open(f"{stage.demo.page}#/{view}")
        eventually("the view", lambda: browser.all("main table"))
        wide = browser.script("return document.documentElement.scrollWidth - innerWidth")
        expect(f"{view} is {wide} px too wide", wide <= 0)


def a_page_behind_the_gateway_is_loaded_by_tls_and_http_2(stage, browser):
    browser.open(f"https://localhost:{stage.secure.public}/")
    eventually("the page's script ran", lambda: browser.driver.title == "loaded")
    protocols = browser.script("return [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')].map(it => it.nextHopProtocol)")
    expect(f"all by HTTP/2: {protocols}", len(protocols) >= 4 and set(protocols) == {"h2"})
    trace = browser.script("return performance.getEntriesByType('navigation')[0].serverTiming.map(it => [it.name, it.description])")
    expect(f"the browser is told the trace: {trace}", any(name == "trace" and description.startswith("00-") for name, description in trace))


def the_page_by_tls_has_a_cookie_for_this_host_alone(stage, browser):
    browser.open(f"https://localhost:{stage.secure.admin}/")
    log_in(browser, "operator")
    browser.says("operator", "#who")
    cookie = browser.driver.get_cookie("__Host-tracegate")
    expect(f"the cookie: {cookie}", cookie and cookie["secure"] and cookie["httpOnly"] and cookie["sameSite"] == "Strict")


def log_in(browser, role):
    field = browser.one("#token")
    field.clear()
    field.send_keys(TOKENS[role], Keys.ENTER)
    eventually("logged in", lambda: not browser.all("#token"))


SENTENCES = [
    the_overview_ranks_routes_and_leads_to_the_trace_that_explains,
    traces_are_filtered_found_and_opened_as_a_waterfall,
    an_error_arrives_while_one_looks,
    one_logs_in_with_a_token_and_out_again,
    a_change_is_taken_only_from_the_page_itself,
    a_reload_that_removes_the_token_ends_the_session,
    lost_spans_are_told_above_every_view,
    everything_is_reached_by_keys,
    every_control_has_a_name_and_enough_contrast_in_both_themes,
    nothing_is_cut_off_at_the_width_of_a_phone,
    a_page_behind_the_gateway_is_loaded_by_tls_and_http_2,
    the_page_by_tls_has_a_cookie_for_this_host_alone,
]


class Stage:
    """The demo, a gateway with tokens, and one with TLS as well."""

    def __init__(self, binary, directory):
        self.binary, self.directory, self.started = binary, directory, []
        self.site = self.keep(Site())
        self.demo = self.keep(Demo(binary))
        self.gateway = self.keep(Gateway(binary, directory, self.site.port))
        tls = f"{{ certificate_file = '{PROJECT}/certs/gateway.pem', key_file = '{PROJECT}/certs/gateway-key.pem' }}"
        self.secure = self.keep(Secure(binary, directory, self.site.port, f"[listeners.public.tls]\n{tls[2:-2].replace(', ', chr(10))}\n[admin.tls]\n{tls[2:-2].replace(', ', chr(10))}\n"))

    def keep(self, started):
        self.started.append(started)
        return started

    def close(self):
        for one in reversed(self.started):
            one.close()


class Secure(Gateway):
    """The same with TLS everywhere."""

    def ask(self, method, path, fields=(), body=None, port=None):
        import ssl
        context = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection("127.0.0.1", port or self.admin, timeout=PATIENCE, context=context)
        try:
            connection.request(method, path, body, dict(fields))
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()


def take_pictures(stage, directory):
    directory.mkdir(parents=True, exist_ok=True)
    browser = Browser()
    try:
        for scheme in ("light", "dark"):
            browser.prefers(scheme)
            for width, height, kind in ((1360, 900, "wide"), (375, 812, "phone")):
                browser.size(width, height)
                for view in ("routes", "traces", "upstreams", "system"):
                    browser.open(f"{stage.demo.page}#/{view}")
                    eventually("the view", lambda: browser.all("main table"))
                    time.sleep(0.4)
                    browser.picture(directory / f"{view}-{kind}-{scheme}.png")
                browser.open(f"{stage.demo.page}#/routes/order_create")
                eventually("charts", lambda: browser.all("svg.chart"))
                browser.picture(directory / f"route-{kind}-{scheme}.png")
                browser.open(f"{stage.demo.page}#/traces?failed=true&blame=upstream")
                browser.one("tr.row").click()
                browser.says("Waterfall")
                browser.picture(directory / f"trace-{kind}-{scheme}.png")
                browser.open(stage.gateway.page)
                browser.says("Log in")
                browser.picture(directory / f"login-{kind}-{scheme}.png")
    finally:
        browser.close()


def main():
    parser = arguments(__doc__)
    parser.add_argument("--pictures", type=Path)
    asked = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory(prefix="tracegate-browser-") as directory, contextlib.closing(Stage(Path(asked.binary).resolve(), directory)) as stage:
        def holds(sentence):
            with contextlib.closing(Browser()) as browser:
                try:
                    sentence(stage, browser)
                except Exception as error:
                    kind = "" if isinstance(error, Failed) else f"{type(error).__name__}: "
                    said = f"{browser.driver.current_url}\n        {browser.complaints()}"
                    raise Failed(f"{kind}{str(error).splitlines()[0]}\n        {said}") from error

        tell(SENTENCES, asked.words, holds, lambda: asked.pictures and take_pictures(stage, asked.pictures))


if __name__ == "__main__":
    main()
