#!/usr/bin/env bash
# The paper on a GPU within so many seconds: what is worth most first. Run it again to go on where it stopped.
#
#   benchmarks/gpu.sh SECONDS
#
# Environment, all optional: PYTHON (python3), DEVICE (cuda), DATA (data: has cifar10.npz), RUNS (runs/gpu: runs and
# their checkpoints), RESULTS (benchmarks/results: finished runs, to be kept), OUT (docs/gpu: profile and report), JOBS
# (runs side by side; without it what the profile found fastest).
set -euo pipefail
cd "$(dirname "$0")/.."
if ! [[ "${1:-}" =~ ^[0-9]+$ ]]; then
    echo "usage: benchmarks/gpu.sh SECONDS" >&2
    exit 2
fi
python=${PYTHON:-python3} device=${DEVICE:-cuda} data=${DATA:-data}
runs=${RUNS:-runs/gpu} results=${RESULTS:-benchmarks/results} out=${OUT:-docs/gpu}
reserve=45 # seconds for the report
end=$((SECONDS + $1 - reserve))
if [[ ! -f $data/cifar10.npz ]]; then
    echo "$data/cifar10.npz is missing: put it there, or name its directory in DATA" >&2
    exit 2
fi
mkdir -p "$runs" "$results" "$out"
find "$results" -maxdepth 1 -name '*.jsonl' -exec cp -n {} "$runs" \; # what an earlier machine finished is done

left() { echo $((end - SECONDS)); }

# measure NAME SHARE COMMAND…: a measurement, once, in at most that share (in percent) of the time.
measure() {
    local name=$1 limit=$(($(left) * $2 / 100))
    shift 2
    [[ -f $out/$name.done ]] && return
    ((limit > 10)) || return 0
    echo "== $name (at most $limit s)"
    timeout "$limit" "$python" -m benchmarks "$@" --device "$device" --output "$out/$name.md" && touch "$out/$name.done" ||
        echo "$name is not complete: the next call begins it again"
}

# study NAME OPTIONS…: the runs of a study that are missing, until the time is up.
study() {
    local seconds code=0
    seconds=$(left)
    ((seconds > 10)) || return 0
    echo "== $* ($seconds s left)"
    "$python" -m benchmarks run "$@" --device "$device" --data-dir "$data" --results "$runs" --output "$runs/report" \
        --jobs-per-device "$jobs" --time-budget "$seconds" || code=$?
    find "$runs" -maxdepth 1 -name '*.jsonl' -exec cp {} "$results" \;
    ((code == 0 || code == 1 || code == 3)) || exit "$code" # a failed run and spent time are no reason to stop here
}

measure profile 25 profile --data-dir "$data" --modes eager,captured
jobs=${JOBS:-$("$python" - "$out/profile.json" <<'PY'
import json, pathlib, sys

path = pathlib.Path(sys.argv[1])
rows = json.loads(path.read_text())["rows"] if path.exists() else []
rows = [row for row in rows if row["workload"] == "cifar10-vgg16" and row["mode"] == "captured"]
print(min(rows, key=lambda row: row["s/epoch/runs"])["side by side"] if rows else 2)
PY
)}
echo "$jobs runs side by side"

study paper-bn                                        # the batch-norm question
study paper-table1 --seeds 1                          # Table 1
measure profile-compiled 25 profile --data-dir "$data" --modes compiled
measure steptime 25 steptime                          # the optimizers' step against the bytes floor
study paper-table1-short                              # the short protocol, five seeds
study paper-fig1 --only cifar10-resnet18 --seeds 1    # Figure 1
study paper-bias-correction                           # three readings of the bias correction
study paper-table1                                    # the other seeds of Table 1
study paper-fig1 --only cifar10-resnet18              # and of Figure 1

"$python" -m benchmarks report paper-bn paper-table1 paper-table1-short paper-fig1 paper-bias-correction \
    --results "$results" --output "$out"
if (($(left) > 0)); then echo "all done"; else echo "time is up: the same command goes on"; fi
