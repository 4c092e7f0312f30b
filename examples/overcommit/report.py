"""Adds up the time that instances held the device, beside what five instances that are always on would have held."""

import json
import subprocess
import sys

kip, data = sys.argv[1:3]
SHARE_GIB = 10
AWAKE = {"starting", "initializing", "ready", "busy", "draining", "waking", "pausing", "paused", "parking"}


def ask(*words):
    return json.loads(subprocess.check_output([kip, "--data-dir", data, "-o", "json", *words]))


held = lived = 0
for function in (one["name"] for one in ask("ls")):
    for version in ask("usage", function)["versions"]:
        lived += version["total_ms"]
        held += sum(millis for states in version["times"].values() for state, millis in states.items() if state in AWAKE)
saved = 100 * (lived - held) / max(lived, 1)
print(f"always on:   {lived / 1000 * SHARE_GIB:8.0f} GiB·s of device memory, on a device of 50 GiB")
print(f"with turns:  {held / 1000 * SHARE_GIB:8.0f} GiB·s, on a device of 20 GiB: {saved:.0f} % saved")
