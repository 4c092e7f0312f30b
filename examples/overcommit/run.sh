#!/bin/sh
# Five models on a device that has room for two: who slept, who woke, who was evicted and why, and what that saved. Takes less than a minute.
# Needs python3. Starts a server of its own with a declared device, and stops it at the end. KIP names another program than `kip`.
set -eu
cd "$(dirname "$0")"
KIP=${KIP:-kip}
data=$(mktemp -d)
kip() { "$KIP" --data-dir "$data" "$@"; }
trap 'kip stop >/dev/null 2>&1 || true; rm -rf "$data"' EXIT

cat > "$data/kipwake.toml" <<'TOML'
[[device]]
name = "gpu0"
memory = "20GiB"

[server]
gateway = "127.0.0.1:0"
api = "127.0.0.1:0"
TOML
kip start >/dev/null

echo "== five models of 10 GiB each, one device of 20 GiB; chat is pinned"
kip deploy . --no-wait
for round in 1 2 3; do
  for model in chat code embed chat ocr speech chat; do
    kip invoke "$model" /generate -d '{}'
  done
done

echo "== the device"
kip device ls -v
echo "== what fits"
kip fit
echo "== who went and came, and why"
for model in code embed ocr speech; do
  kip why "$model" | grep -E 'parking|waking|starting' | sed "s/^/$model: /" | tail -4
done
echo "== what it saved"
python3 report.py "$KIP" "$data"
