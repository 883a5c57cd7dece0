#!/usr/bin/env python3
"""Whether a CycloneDX bill of materials is of this version and names every crate that Cargo.lock pins for the binary.

    scripts/check-bill.py tracegate.cdx.json
"""

import json
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]


def main():
    bill = json.loads(Path(sys.argv[1]).read_text())
    tree = subprocess.run(
        ["cargo", "tree", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}"],
        cwd=PROJECT, check=True, capture_output=True, text=True,
    ).stdout
    used = {tuple(line.split()[:2]) for line in tree.splitlines() if line}
    name, version = next(crate for crate in used if crate[0] == "tracegate")
    own = bill["metadata"]["component"]
    listed = {(one["name"], f"v{one['version']}") for one in bill["components"]}
    missing = used - listed - {(name, version)}
    if own["name"] != name or f"v{own['version']}" != version or missing:
        sys.exit(f"the bill is of {own['name']} {own['version']}; it lacks {sorted(missing)}")
    print(f"{len(listed)} crates, {sum('licenses' in one for one in bill['components'])} with their licence")


if __name__ == "__main__":
    main()
