#!/bin/sh
# The GPU benchmark on a machine that has a driver and no registries: everything it needs lies beside this file
# (`cargo xtask bench gpu --pack` puts it there). PyTorch is used if python3 has it, and left out if not.
#
#   OUT=folder BUDGET=seconds sh run.sh
#
# It changes no setting of a device, resets nothing, and kills no process that is alive and was restored.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${OUT:-$here/out}
budget=${BUDGET:-540}
mkdir -p "$out"
{
  uname -a
  cat /proc/driver/nvidia/version 2>/dev/null || echo "no kernel module of the driver is visible"
  nvidia-smi 2>/dev/null || echo "there is no nvidia-smi"
  ulimit -a
} >"$out/host.txt" 2>&1
torch=
if python3 -c 'import torch; assert torch.cuda.is_available()' >/dev/null 2>&1; then
  torch=$here/torch_server.py
else
  echo "python3 has no PyTorch that sees a device: the row \`weight\` is left out" >&2
fi
status=0
"$here/gpu_bench" run --out "$out" --budget "$budget" ${torch:+--torch "$torch"} 2>"$out/stderr.txt" || status=$?
tail -n 20 "$out/stderr.txt" >&2
# What the kernel says after the risky rows belongs to the figures.
dmesg 2>/dev/null | grep -i -E 'nvrm|xid' | tail -n 50 >"$out/kernel.txt" || true
exit "$status"
