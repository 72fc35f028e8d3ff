#!/bin/sh
# Have a running Ray cluster do one entk command; it goes on when this terminal is closed:
#   sh cluster/ray/submit.sh run /shared/configs/living17.yaml --out /shared/runs/living17
# The dashboard listens on the head's loopback address: first, in another terminal,
#   ray dashboard cluster/ray/cluster.yaml
set -eu
export RAY_AUTH_MODE=token
export RAY_API_SERVER_ADDRESS="${RAY_API_SERVER_ADDRESS:-http://127.0.0.1:8265}"
# The driver asks for no core of the head: entk's workers take them.
exec ray job submit --no-wait --entrypoint-num-cpus 0 -- entk "$@"
