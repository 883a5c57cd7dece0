"""The table and the plot."""

import statistics

COLUMNS = [
    ("us", "µs CPU a request", 1),
    ("rps", "requests a second", 0),
    ("p50", "p50 ms", 2),
    ("p99_alone", "p99 ms before", 2),
    ("p99", "p99 ms", 2),
    ("spans", "spans a request", 2),
    ("memory", "MiB", 1),
    ("kib", "KiB a connection", 1),
    ("ms", "ms", 1),
    ("cpu_ms", "ms CPU", 1),
    ("megabytes", "MB", 2),
    ("wire", "MB sent", 2),
    ("memory_end", "MiB at the end", 1),
]


def table(title, results):
    """Medians of the rounds, with the span of CPU per request, as Markdown. `results` maps a gateway to its rounds."""
    known = [column for column in COLUMNS if any(column[0] in one for rounds in results.values() for one in rounds)]
    lines = [f"**{title}**", "", "| gateway | " + " | ".join(label for _, label, _ in known) + " | |"]
    lines.append("|---|" + "--:|" * len(known) + "---|")
    for name, rounds in results.items():
        fine = [one for one in rounds if "failed" not in one]
        if not fine:
            lines.append(f"| {name} | " + " | ".join("–" for _ in known) + f" | {rounds[-1]['failed'][:80]} |")
            continue
        cells = []
        for key, _, digits in known:
            values = [one[key] for one in fine if key in one]
            cell = f"{statistics.median(values):,.{digits}f}" if values else "–"
            if key == "us" and len(values) > 1:
                cell += f" ({min(values):.1f}–{max(values):.1f})"
            cells.append(cell)
        wrong = {one.get("wrong") for one in fine if one.get("wrong")}
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {'; '.join(sorted(wrong))} |")
    return "\n".join(lines) + "\n"


def median(rounds, key):
    values = [one[key] for one in rounds if key in one]
    return statistics.median(values) if values else None


def plot(path, everything):
    """CPU per request of every gateway in every scenario that has it, as bars."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as pyplot

    scenarios = [name for name, results in everything.items() if any(median(r, "us") for r in results.values())]
    if not scenarios:
        return
    figure, axes = pyplot.subplots(1, len(scenarios), figsize=(3.2 * len(scenarios), 3.6), squeeze=False)
    for axis, scenario in zip(axes[0], scenarios):
        names = list(everything[scenario])
        values = [median(everything[scenario][name], "us") or 0 for name in names]
        colors = ["#1b6ca8" if name.startswith("tracegate") else "#b8b8b8" for name in names]
        axis.barh(names, values, color=colors)
        axis.invert_yaxis()
        axis.set_title(scenario, fontsize=9)
        axis.set_xlabel("µs CPU a request", fontsize=8)
        axis.tick_params(labelsize=8)
    figure.tight_layout()
    figure.savefig(path)
