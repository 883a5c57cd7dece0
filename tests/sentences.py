"""What the suites share in which somebody looks at a gateway that runs: waiting, the demo, and telling which sentences hold."""

import argparse
import contextlib
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
PATIENCE = 20


class Failed(Exception):
    """What was expected and what came instead."""


def expect(what, holds):
    if not holds:
        raise Failed(what)


def eventually(what, holds, seconds=PATIENCE, seen=None, passing=(ConnectionError,)):
    """Waits until it holds, and returns what it is; what may fail in passing does not hold yet."""
    until = time.monotonic() + seconds
    while True:
        with contextlib.suppress(*passing):
            value = holds()
            if value:
                return value
        if time.monotonic() > until:
            raise Failed(f"waited {seconds} s: {what}" + (f"; there was\n{seen()}" if seen else ""))
        time.sleep(0.05)


def stop(process):
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Demo:
    """tracegate demo; its live page is the first thing that it prints."""

    def __init__(self, binary):
        self.process = subprocess.Popen([binary, "demo", "--rate", "12"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        first = self.process.stdout.readline()
        found = re.match(r"http://\S+/", first)
        expect(f"the page comes first: {first!r}", found)
        self.page = found[0]
        # nobody reads what it prints from now on, but it must not stand still for that
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    def close(self):
        stop(self.process)


def arguments(text):
    """The command line of a suite: the binary, and words that choose sentences."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", nargs="?", default=PROJECT / "target/release/tracegate")
    parser.add_argument("words", nargs="*")
    return parser


def tell(sentences, words, holds, after=lambda: None):
    """Says of each chosen sentence whether it holds, and ends with 1 unless all do and there is one.

    `holds(sentence)` runs it and may raise anything; `after()` is done before the end.
    """
    chosen = [sentence for sentence in sentences if not words or any(word in sentence.__name__.replace("_", " ") for word in words)]
    failed = 0
    for sentence in chosen:
        name, begun = sentence.__name__.replace("_", " "), time.monotonic()
        try:
            holds(sentence)
            print(f"ok      {time.monotonic() - begun:5.1f} s  {name}", flush=True)
        except Exception as error:  # whatever it is, the sentence does not hold
            failed += 1
            kind = "" if isinstance(error, Failed) else f"{type(error).__name__}: "
            print(f"FAILED  {time.monotonic() - begun:5.1f} s  {name}\n        {kind}{error}", flush=True)
    after()
    print(f"{len(chosen) - failed} hold, {failed} failed")
    sys.exit(1 if failed or not chosen else 0)
