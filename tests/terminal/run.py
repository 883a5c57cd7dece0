#!/usr/bin/env python3
"""`tracegate top`, driven as a person would: in a terminal of tmux, before a demo that runs.

    tests/terminal/run.py [target/release/tracegate] [--screens DIRECTORY] [WORD…]

Words choose the sentences whose names contain one of them. --screens keeps what was seen. Needs Python 3.9 or later and
tmux. Only loopback addresses and free ports; every wait is for a text, and bounded; all that was started is stopped.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from sentences import Demo, Failed, arguments, eventually, tell  # noqa: E402

PATIENCE = 30


class Terminal:
    """A terminal with a shell in it, of a tmux of its own."""

    def __init__(self, directory, width=80, height=24):
        self.tmux = ["tmux", "-f", "/dev/null", "-S", str(Path(directory) / f"tmux-{time.monotonic_ns()}")]
        environment = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "TRACEGATE_TOKEN", "TMUX")}
        environment.update(LC_ALL="C.UTF-8", TERM="xterm")
        start = ["new-session", "-d", "-x", str(width), "-y", str(height), "sh"]
        subprocess.run([*self.tmux, *start], check=True, env=environment)
        # in two pieces, so that what is typed is not what is waited for
        self.runs("PS1='she''ll$ '")
        self.sees("shell$")

    def do(self, *arguments):
        return subprocess.run([*self.tmux, *arguments], check=True, capture_output=True, text=True).stdout

    def screen(self, *more):
        return self.do("capture-pane", "-p", *more)

    def types(self, text):
        self.do("send-keys", "-l", text)

    def press(self, *keys):
        self.do("send-keys", *keys)

    def sees(self, *texts):
        for text in texts:
            eventually(f"to see {text!r}", lambda: re.search(text if isinstance(text, re.Pattern) else re.escape(text), self.screen()), PATIENCE, self.screen)

    def sees_no_more(self, text):
        eventually(f"not to see {text!r}", lambda: text not in self.screen(), PATIENCE, self.screen)

    def runs(self, command):
        self.types(command)
        self.press("Enter")

    def close(self):
        with contextlib.suppress(subprocess.CalledProcessError):
            self.do("kill-server")


def shows_routes_with_figures_and_opens_one_and_its_trace(stage, terminal):
    terminal.runs(stage.top())
    terminal.sees("live", "1 routes", "RATE/s", re.compile(r"order_create +\d"), "q quit")
    stage.keep(terminal, "routes")
    terminal.types("/order_create")
    terminal.press("Enter")
    terminal.sees('only "order_create"')
    terminal.press("Enter")
    terminal.sees("requests", re.compile("most [1-9]"), "5 min", "Esc back")
    stage.keep(terminal, "route")
    terminal.press("Escape")
    terminal.sees("trouble first")
    terminal.press("Escape")
    terminal.sees_no_more("only")
    terminal.types("3")
    terminal.sees("WHAT HAPPENED", re.compile(r"\d\d:\d\d:\d\d  \d{3}"))
    stage.keep(terminal, "traces")
    terminal.types("/order_create")
    terminal.press("Enter")
    terminal.press("Enter")
    terminal.sees(re.compile("trace [0-9a-f]{32}"), "FROM", "exchange", "attempt 1")
    stage.keep(terminal, "trace")


def sorts_by_keys_and_tells_them(stage, terminal):
    terminal.runs(stage.top())
    terminal.sees("trouble first", "order_create")
    terminal.types("n")
    terminal.sees("by route, A first")
    terminal.types("r")
    terminal.sees("by route, A last")
    terminal.types("w")
    terminal.sees("of the last 1 h")
    terminal.types("?")
    terminal.sees("sort routes by the next column")
    stage.keep(terminal, "help")


def shows_endpoints_and_the_balance(stage, terminal):
    terminal.runs(stage.top())
    terminal.sees("live")
    terminal.types("2")
    terminal.sees("usable", "ENDPOINT", "IN FLIGHT", "127.0.0.1:")
    stage.keep(terminal, "upstreams")
    terminal.types("4")
    terminal.sees("telemetry balances", "EXPORTED", "configuration: generation 1")
    stage.keep(terminal, "telemetry")


def follows_the_size_of_the_terminal(stage, terminal):
    terminal.runs(stage.top())
    terminal.sees("p50", "PHASE", "order_create")
    terminal.do("resize-window", "-x", "50", "-y", "12")
    terminal.sees_no_more("PHASE")
    terminal.sees("order_create")
    terminal.do("resize-window", "-x", "30", "-y", "8")
    terminal.sees("needs 40")
    terminal.do("resize-window", "-x", "120", "-y", "40")
    terminal.sees("PHASE", "q quit")


def gives_the_terminal_back(stage, terminal):
    terminal.runs("echo before; " + stage.top())
    terminal.sees("live")
    terminal.types("q")
    terminal.sees("before", "shell$")
    terminal.sees_no_more("live")
    # and when it is told to go
    number = stage.directory / "number"
    terminal.runs(f"sh -c 'echo $$ >{number}; exec {stage.top()}'")
    terminal.sees("live")
    os.kill(int(number.read_text()), signal.SIGTERM)
    terminal.sees_no_more("live")
    terminal.runs("echo ended with $?; stty -a | grep -o ' icanon'")
    terminal.sees("ended with 0", "\n icanon")


def says_that_the_gateway_is_gone(stage, terminal):
    with contextlib.closing(Demo(stage.binary)) as demo:
        terminal.runs(stage.top(demo.page))
        terminal.sees("live", "order_create")
        demo.close()
        terminal.sees("not connected", "trying again in")
        terminal.sees("order_create")
        stage.keep(terminal, "lost")


def has_no_colours_where_none_are_wanted(stage, terminal):
    terminal.runs("NO_COLOR=1 " + stage.top())
    terminal.sees("live", "order_create")
    escapes = re.findall(r"\x1b\[([\d;]*)m", terminal.screen("-e"))
    codes = {int(code) for escape in escapes for code in escape.split(";") if code}
    coloured = {code for code in codes if 30 <= code <= 38 or 40 <= code <= 48 or 90 <= code <= 107}
    if coloured:
        raise Failed(f"colours: {coloured}")


SENTENCES = [
    shows_routes_with_figures_and_opens_one_and_its_trace,
    sorts_by_keys_and_tells_them,
    shows_endpoints_and_the_balance,
    follows_the_size_of_the_terminal,
    gives_the_terminal_back,
    says_that_the_gateway_is_gone,
    has_no_colours_where_none_are_wanted,
]


class Stage:
    def __init__(self, binary, directory, screens):
        self.binary, self.screens, self.demo = binary, screens, Demo(binary)
        self.directory = Path(directory)

    def top(self, page=None):
        return f"{self.binary} top --admin {page or self.demo.page}"

    def keep(self, terminal, name):
        if self.screens:
            self.screens.mkdir(parents=True, exist_ok=True)
            (self.screens / f"{name}.txt").write_text(terminal.screen())

    def close(self):
        self.demo.close()


def main():
    parser = arguments(__doc__)
    parser.add_argument("--screens", type=Path)
    asked = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory(prefix="tracegate-top-") as directory, contextlib.closing(Stage(Path(asked.binary).resolve(), directory, asked.screens)) as stage:
        def holds(sentence):
            with contextlib.closing(Terminal(directory)) as terminal:
                sentence(stage, terminal)

        tell(SENTENCES, asked.words, holds)


if __name__ == "__main__":
    main()
