"""Measures tracegate and its peers side by side; see README.md beside this file. Called by `bench/run`."""

import argparse
import datetime
import json
import os
import platform
import sys
from pathlib import Path

import gateways
import report
import scenarios
from stage import Failed, Stage

PEERS = ["tracegate", "nginx", "haproxy", "envoy", "traefik", "caddy"]


def questions(seconds):
    """Each scenario: what it is called, who takes part, what is measured."""
    ours = ["tracegate"]
    http1 = lambda **plan: scenarios.http1(seconds=seconds, **plan)
    by_workers = [name + workers for name in ("tracegate", "nginx", "envoy") for workers in ("", scenarios.ONE_WORKER)]
    by_tracing = [f"tracegate, {traced}" for traced in scenarios.SAMPLED]
    return {
        "traced": ("every request traced, 64 connections", PEERS, http1(ratio=1.0)),
        "off": ("tracing off, 64 connections", [*PEERS, "bare"], http1()),
        "sampled1": ("1 % sampled, errors kept, 64 connections", ["tracegate", "envoy"], http1(ratio=0.01)),
        "cost": ("what tracing costs, 64 connections", by_tracing, scenarios.cost(seconds=seconds)),
        "tls": ("HTTP/1.1 over TLS, traced", PEERS, http1(ratio=1.0, scheme="https")),
        "h2": ("HTTP/2 over TLS, traced", PEERS, scenarios.http2(seconds=seconds, ratio=1.0)),
        "mb": ("answers of 1 MiB, traced, 16 connections", PEERS, http1(ratio=1.0, path="/big/1m", connections=16)),
        "c1000": ("1,000 connections, traced", PEERS, http1(ratio=1.0, connections=1000)),
        "workers": ("two workers and one on two cores, traced", by_workers, scenarios.workers(seconds=seconds, ratio=1.0)),
        "rate": ("half of the slower one's peak rate, traced", ["tracegate", "envoy"], None),
        "idle": ("idle connections", PEERS, scenarios.idle(ratio=1.0)),
        "routes10": ("10 routes, tracing off", ours, http1(routes=10)),
        "routes10000": ("10,000 routes, tracing off", ours, http1(routes=10_000)),
        "start": ("from the start to the first answer, 1,000 routes", ["tracegate", "envoy"], scenarios.start()),
        "scrape": ("a scrape with 1,000 routes and two series each", ours, scenarios.scrape(seconds=seconds)),
        "reload": ("a reload of 10,000 routes, one different", ours, scenarios.reload(seconds=seconds)),
        "soak": ("ten minutes at full load, traced", ours, scenarios.soak(ratio=1.0)),
    }


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--scenarios", default=None, help="a list with commas; all but soak unless told")
    arguments.add_argument("--gateways", default=None, help="a list with commas; all that fit unless told")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=int, default=4)
    arguments.add_argument("--collector", type=Path, required=True)
    arguments.add_argument("--out", type=Path, default=Path("target/bench-results"))
    options = arguments.parse_args()
    known = questions(options.seconds)
    asked = options.scenarios.split(",") if options.scenarios else [name for name in known if name != "soak"]
    everything = {}
    with Stage(options.collector) as stage:
        for scenario in asked:
            title, names, measure = known[scenario]
            if options.gateways:
                names = [name for name in names if name.split(",")[0] in options.gateways.split(",")]
            if scenario == "rate":
                rate = half_of_the_slower(everything, stage, options.seconds)
                title += f" ({rate:,.0f} requests a second)"
                measure = scenarios.fixed_rate(rate, seconds=options.seconds, ratio=1.0)
            results = everything.setdefault(scenario, {name: [] for name in names})
            rounds = 1 if scenario == "soak" else options.rounds
            for number in range(rounds):
                # in turn within each round, so that a ratio is fair when the machine's speed drifts
                for name in names:
                    try:
                        one = measure(name, stage)
                    except Failed as failed:
                        one = {"failed": str(failed).replace("\n", " ")}
                    results[name].append(one)
                    print(scenario, number, name, one, file=sys.stderr, flush=True)
            print(report.table(title, results), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    write(options.out, known, everything)


def half_of_the_slower(everything, stage, seconds):
    measure = scenarios.http1(ratio=1.0, seconds=seconds)
    peaks = []
    for name in ("tracegate", "envoy"):
        rounds = everything.get("traced", {}).get(name) or [measure(name, stage)]
        peaks.append(report.median(rounds, "rps"))
    return min(peaks) / 2


def write(out, known, everything):
    names = list(dict.fromkeys(name for results in everything.values() for name in results))
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "?")
    page = [f"Measured on {datetime.date.today()}: {model}, {os.cpu_count()} cores, Linux {platform.release()}.", ""]
    page += [f"- {name}: {gateways.version(name)}" for name in names if name in gateways.ALL] + [""]
    page += [report.table(known[scenario][0], results) for scenario, results in everything.items()]
    (out / "results.md").write_text("\n".join(page))
    (out / "results.json").write_text(json.dumps(everything, indent=1))
    report.plot(out / "results.svg", everything)
    print(f"written to {out}")


if __name__ == "__main__":
    main()
