#!/usr/bin/env python3
"""Does a collector that is dead, or that takes exports and never answers, slow requests or cost CPU?

Ten rounds, each of four runs under full load by one wrk: healthy, healthy once more, dead, stalled; which of them comes
first changes from round to round. The second healthy run is the control: as much as it differs from the first, in the
same round, two runs differ by nothing but chance. Asked is, of each state:

  p99  its difference from healthy (the median of the rounds) is not above all that the control's differences show;
  CPU  for each request, by the same median, at most 3 % more than healthy. (Less is no fault: what is not taken need
       not be sent. What was queued when a healthy run ended is exported before its CPU time is read.)

  bench/collector_away.py [GATEWAY [COLLECTOR]]   a shipped build; alone on the machine, two cores; about six minutes
  --rounds N --seconds S                          for a try: fewer rounds, shorter runs

It exits with 1 if the answer is yes.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

import gateways
from stage import ADMIN, COLLECTOR, PATH, PROJECT, Failed, Process, Stage, fetch, listens, spans, wrk

STATES = ("healthy", "control", "dead", "stalled")
CONNECTIONS = 32
MOST_CPU = 3.0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gateway", nargs="?", default=PROJECT / "target/dist/tracegate")
    parser.add_argument("collector", nargs="?", default=None)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=int, default=5)
    asked = parser.parse_args()
    os.environ["TRACEGATE"] = str(asked.gateway)
    runs = {state: [] for state in STATES}
    with Stage(asked.collector or built_collector()) as stage:
        # the gateway is to be one process for all, so that nothing but the collector differs
        command, environment = gateways.tracegate(gateways.Plan(stage.directory, ratio=1.0))
        # so that what nobody takes is soon out of the way of the next run
        environment["TRACEGATE_TELEMETRY__OTLP__GIVE_UP_AFTER"] = "2s"
        gateway = Process("gateway", command, "0", stage.directory, environment)
        try:
            listens(ADMIN, gateway)
            put(stage, gateway, "healthy")
            wrk(CONNECTIONS, 2)
            for number in range(asked.rounds):
                for turn in range(len(STATES)):
                    state = STATES[(number + turn) % len(STATES)]
                    runs[state].append(run(stage, gateway, state, asked.seconds))
                line = ", ".join(f"{state} {runs[state][-1]['p99']:.2f} ms" for state in STATES)
                print(f"round {number + 1}: p99 {line}", flush=True)
        finally:
            gateway.stop()
    return tell(runs)


def built_collector():
    manifest = PROJECT / "bench/collector/Cargo.toml"
    subprocess.run(["cargo", "build", "--release", "--quiet", "--manifest-path", manifest], check=True)
    return PROJECT / "bench/collector/target/release/collector"


def put(stage, gateway, state):
    """Puts the collector in this state; what waits from another state is out of the way then."""
    if stage.processes[1:]:
        stage.processes.pop().stop()
    if state != "dead":
        collector = Process("collector", [stage.collector, str(COLLECTOR)], "1", stage.directory)
        stage.processes.append(collector)
        listens(COLLECTOR, collector)
        drained(gateway)
    if state == "stalled":
        fetch(COLLECTOR, "/stall")
    # the gateway has met the state before it is measured
    if wrk(CONNECTIONS, 1)["wrong"]:
        raise Failed(f"requests fail with a collector that is {state}")


def drained(gateway, seconds=60):
    """Waits until no span waits for the collector."""
    end = time.monotonic() + seconds
    while queued():
        if time.monotonic() > end or gateway.process.poll() is not None:
            raise Failed("what is queued does not go away")
        time.sleep(0.05)


def queued():
    name = 'tracegate_telemetry_spans_queued{receiver="otlp"}'
    lines = fetch(ADMIN, "/metrics").decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def run(stage, gateway, state, seconds):
    put(stage, gateway, state)
    healthy = state in ("healthy", "control")
    if healthy:
        drained(gateway)
    before = gateway.cpu()
    told = wrk(CONNECTIONS, seconds)
    if healthy:
        drained(gateway)
    told["cpu"] = (gateway.cpu() - before) / told["requests"] * 1e6
    told["memory"] = gateway.memory()
    told["spans"] = spans() if healthy else 0
    if told["wrong"]:
        raise Failed(f"with a collector that is {state}: {told['wrong']}")
    if healthy and told["spans"] < told["requests"]:
        raise Failed(f"a healthy collector has {told['spans']} spans of {told['requests']} requests")
    return told


def tell(runs):
    print(f"\n{PATH}, {CONNECTIONS} connections, every request traced; medians of {len(runs['healthy'])} rounds\n")
    print("| collector | requests/s | p50 ms | p99 ms | CPU µs a request | p99 less healthy's, ms | CPU less healthy's, % | memory MiB |")
    print("|---|---|---|---|---|---|---|---|")
    differences = {}
    for state in STATES:
        pairs = list(zip(runs[state], runs["healthy"]))
        p99 = [one["p99"] - healthy["p99"] for one, healthy in pairs]
        cpu = [(one["cpu"] / healthy["cpu"] - 1) * 100 for one, healthy in pairs]
        differences[state] = (p99, cpu)
        median = {key: statistics.median(one[key] for one in runs[state]) for key in ("rps", "p50", "p99", "cpu")}
        print(
            f"| {state} | {median['rps']:.0f} | {median['p50']:.2f} | {median['p99']:.2f} | {median['cpu']:.1f} "
            f"| {spread(p99, 2)} | {spread(cpu, 1)} | {max(one['memory'] for one in runs[state]):.0f} |"
        )
    most = max(differences["control"][0])
    slow = False
    print()
    for state in ("dead", "stalled"):
        p99, cpu = (statistics.median(values) for values in differences[state])
        slow |= p99 > max(most, 0) or cpu > MOST_CPU
        print(
            f"{state}: p99 {'within' if p99 <= max(most, 0) else 'ABOVE'} the control's spread "
            f"({p99:+.2f} ms, the control up to {most:+.2f} ms); "
            f"CPU {'within' if cpu <= MOST_CPU else 'ABOVE'} {MOST_CPU:.0f} % ({cpu:+.1f} %)"
        )
    return 1 if slow else 0


def spread(values, digits):
    low, median, high = min(values), statistics.median(values), max(values)
    return f"{median:+.{digits}f} ({low:+.{digits}f} … {high:+.{digits}f})"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as failed:
        sys.exit(f"error: {failed}")
