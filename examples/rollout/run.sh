#!/bin/sh
# A good and a bad upgrade of one function, each as a rollout of the alias `prod`, with callers all the time. Takes less than a minute.
# Needs a running server (kip start), python3 and curl. KIP names another program than `kip`.
set -eu
cd "$(dirname "$0")"
KIP=${KIP:-kip}
gateway=$("$KIP" config show -o json | python3 -c 'import json, sys; print(json.load(sys.stdin)["server.gateway"]["value"])')
GATEWAY=${GATEWAY:-$gateway}

release() { # release NUMBER PART-OF-FAILURES [FLAGS]
  RELEASE=$1 FAILS=$2
  export RELEASE FAILS
  shift 2
  "$KIP" deploy . "$@"
  "$KIP" version publish greeter -m "release $RELEASE"
}

callers() { # until the file `going` is gone
  while [ -e "$going" ]; do curl -s -o /dev/null "http://$GATEWAY/f/greeter@prod/" || true; done
}

echo "== release 1 serves"
release 1 0
"$KIP" alias set greeter prod 1
curl -s "http://$GATEWAY/f/greeter@prod/"

going=$(mktemp)
trap 'rm -f "$going"' EXIT
callers & callers & callers &

echo "== release 2 is good: the alias moves in three steps"
release 2 0 --no-traffic
# A busy machine makes short answers late: only much longer times count as worse.
"$KIP" rollout start greeter prod --to 2 --steps 20,50,100 --every 3s --max-slower 1000 --wait
curl -s "http://$GATEWAY/f/greeter@prod/"

echo "== release 3 fails a third of its requests: the rollout goes back by itself"
release 3 0.33 --no-traffic
"$KIP" rollout start greeter prod --to 3 --steps 20,50,100 --every 30s --wait || true
curl -s "http://$GATEWAY/f/greeter@prod/"

rm -f "$going"
wait
echo "== the reasons"
# They are written down once a second.
sleep 2
"$KIP" why greeter --limit 500 | grep rollout
