#!/usr/bin/env bash
# The paper on a GPU within so many seconds: what is worth most first. Call it again to go on where it stopped, on the
# same machine or on a bare one that is given what the last call packed.
#
#   benchmarks/gpu.sh SECONDS
#
# Environment, all optional: PYTHON (python3), DEVICE (cuda), DATA (data: cifar10.npz), RUNS (runs/gpu: runs and
# measurements), JOBS (runs side by side; without it what the profile found fastest), CARRY (carry: what came along: a/
# and b/, the packed data; wheels/; what an earlier call packed), GPU_OUT (runs/gpu-out: gets at most eight files of at
# most 15 MB to bring home or to carry to the next call), STATES (15: MB of unfinished runs' states that are packed),
# MEASURE ("kernels steptime profile profile-compiled"), STUDIES (a line for each: a study and its options).
set -euo pipefail
cd "$(dirname "$0")/.."
if ! [[ "${1:-}" =~ ^[0-9]+$ ]]; then
    echo "usage: benchmarks/gpu.sh SECONDS" >&2
    exit 2
fi
python=${PYTHON:-python3} device=${DEVICE:-cuda} data=${DATA:-data} runs=${RUNS:-runs/gpu}
carry=${CARRY:-carry} out=${GPU_OUT:-runs/gpu-out} states=${STATES:-15}
measurements=${MEASURE-kernels steptime profile profile-compiled}
studies=${STUDIES:-"paper-bn
paper-table1 --seeds 1
paper-table1-short
paper-fig1 --only cifar10-resnet18 --seeds 1
paper-bias-correction
paper-table1
paper-fig1 --only cifar10-resnet18
which-p-cifar10"}
reserve=20 # seconds for packing
end=$((SECONDS + $1 - reserve))
export PYTHONUNBUFFERED=1
mkdir -p "$runs/checkpoints" "$runs/measured" "$out"

left() { echo $((end - SECONDS)); }

# pack: what there is, into files that may travel. Each archive is cut into pieces of 15 MB, `cat` joins them.
pack() {
    local scratch=$runs/.pack
    rm -rf "$scratch" && mkdir "$scratch"
    (cd "$runs" && find . -maxdepth 1 -name '*.jsonl' -print0 && find measured -type f -print0) |
        tar -C "$runs" --null -T - -czf - | split -b 15M - "$scratch/results.tgz."
    # The states of unfinished runs, the smallest first, as far as they fit.
    local room=$((states * 1000000)) lost=0 kept=()
    while read -r size name; do
        if ((size <= room)); then
            room=$((room - size)) kept+=("checkpoints/$name")
        else
            lost=$((lost + 1))
        fi
    done < <(find "$runs/checkpoints" -name '*.pt' -printf '%s %f\n' | sort -n)
    if ((${#kept[@]})); then tar -C "$runs" -cf - "${kept[@]}" | split -b 15M - "$scratch/states.tar."; fi
    rm -f "$out"/results.tgz.* "$out"/states.tar.*
    find "$scratch" -type f -exec mv {} "$out" \;
    rm -rf "$scratch"
    unpacked=$lost
}

# measure NAME SHARE COMMAND…: a measurement, once, in at most that share (in percent) of the time; row by row.
measure() {
    local name=$1 limit=$(($(left) * $2 / 100)) code=0
    shift 2
    [[ " $measurements " == *" $name "* && ! -f $runs/measured/$name.done ]] || return 0
    ((limit > 10)) || return 0
    echo "== $name (at most $limit s)"
    timeout --foreground -k 5 "$limit" "$python" -m benchmarks "$@" --device "$device" --output "$runs/measured/$name.md" || code=$?
    if ((code == 0)); then
        touch "$runs/measured/$name.done"
    elif ((code == 124 || code == 137)); then
        echo "$name is not complete: the next call goes on with its next row"
    else
        echo "$name ended with code $code"
    fi
    pack
}

# marker NAME OPTIONS…: the file that says that a study is complete.
marker() { echo "$runs/measured/$(tr -c 'A-Za-z0-9\n' _ <<<"$*").done"; }

# study WHICH NAME OPTIONS…: the runs of a study that are missing; with --whole for WHICH those that end in the time left.
study() {
    local which=$1 seconds code=0 done
    shift
    done=$(marker "$@")
    [[ ! -f $done ]] || return 0
    seconds=$(left)
    ((seconds > 10)) || return 0
    echo "== $* $which ($seconds s left)"
    timeout --foreground -k 5 $((seconds + reserve / 2)) "$python" -m benchmarks run "$@" --device "$device" --data-dir "$data" \
        --results "$runs" --jobs-per-device "$jobs" --time-budget "$seconds" --no-report $which || code=$?
    pack
    ((code == 0)) && touch "$done"
    # A failed run, spent time and a call that had to be ended are no reason to stop here.
    ((code == 0 || code == 1 || code == 3 || code == 124 || code == 137)) || exit "$code"
}

# What came along: a package that is missing here, what earlier calls have made, the data.
if ! "$python" -c 'import msgspec' 2>/dev/null && compgen -G "$carry/wheels/*.whl" >/dev/null; then
    "$python" -m pip install -q --no-index --no-deps --find-links "$carry/wheels" --target "$runs/site" msgspec
    export PYTHONPATH=$runs/site${PYTHONPATH:+:$PYTHONPATH}
fi
for archive in results.tgz states.tar; do
    if compgen -G "$carry/$archive.*" >/dev/null; then
        flags=-x && [[ $archive == *.tgz ]] && flags=-xz
        cat "$carry/$archive".* | tar -C "$runs" "$flags" --skip-old-files -f -
    fi
done
if [[ ! -f $data/cifar10.npz ]] && compgen -G "$carry/[ab]/*" >/dev/null; then
    "$python" -m benchmarks.workloads.packed unpack "$carry" "$data" || (($? == 3)) # 3: the other part is still to come
fi

measure kernels 40 kernels
measure steptime 40 steptime
if [[ ! -f $data/cifar10.npz ]]; then
    pack
    echo "$data/cifar10.npz is missing: what needs no data is done as far as the time went; bring it for the rest" >&2
    exit 3
fi
measure profile 30 profile --data-dir "$data" --modes "${MODES:-eager,captured}"
jobs=${JOBS:-$("$python" - "$runs/measured/profile.json" <<'PY'
import json, pathlib, sys

path = pathlib.Path(sys.argv[1])
rows = json.loads(path.read_text())["rows"] if path.exists() else []
rows = [row for row in rows if row["workload"] == "cifar10-vgg16" and row["mode"] == "captured"]
print(min(rows, key=lambda row: row["s/epoch/runs"])["side by side"] if rows else 1)
PY
)}
echo "$jobs runs side by side"
# First what ends in this call, then what may at least be begun: its state goes along if it is small enough.
for which in --whole ""; do
    while read -r -u 3 -a line; do # from a descriptor of its own: the commands inside have the terminal
        ((${#line[@]} == 0)) || study "$which" "${line[@]}"
    done 3<<<"$studies"
done
measure profile-compiled 50 profile --data-dir "$data" --modes compiled

pack
ls -l "$out"
((unpacked == 0)) || echo "$unpacked begun runs are too large to be packed: on another machine they begin again"
missing=()
for name in $measurements; do [[ -f $runs/measured/$name.done ]] || missing+=("$name"); done
while read -r -a line; do
    ((${#line[@]} == 0)) || [[ -f $(marker "${line[@]}") ]] || missing+=("${line[*]}")
done <<<"$studies"
if ((${#missing[@]} == 0)); then
    echo "all done"
else
    echo "${#missing[@]} to go on with, by the same command: $(printf '%s; ' "${missing[@]}")"
fi
