#!/usr/bin/env bash
# Everything to measure on one bare GPU machine, in at most 8 minutes: exactness, speed beside trl 1.12, then GLUE.
#
#   DATA_DIR=data OUT=runs/gpu benchmarks/gpu.sh
#
# PEER_PYTHON   a Python that imports trl 1.12 (default: the peers' environment, python benchmarks/peers/environments.py)
# WORKERS       runs at a time on the card for GLUE (default: one per core, at most 16)
# SECONDS_LEFT  for all of it (default: 480)
#
# Every part has a time limit and leaves its result under OUT at once, so a stop loses the running part only.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
DATA_DIR=${DATA_DIR:-data}
OUT=${OUT:-runs/gpu}
end=$((SECONDS + ${SECONDS_LEFT:-480}))
cores=$(nproc)
WORKERS=${WORKERS:-$((cores < 16 ? cores : 16))}
python=python3
[ -x .venv/bin/python ] && python=.venv/bin/python

measure() { "$python" -m benchmarks.gpu --data-dir "$DATA_DIR" --out "$OUT" ${PEER_PYTHON:+--peer-python "$PEER_PYTHON"} "$@"; }

"$python" -m pytest -q -p no:cacheprovider tests/unit/test_graphs_on_gpu.py || echo "the passes on this GPU are not exact: see above"
measure --parts exact,ppo-16+ppo-64+sft-64+judge,usual-16 --limit-s 150
measure --models random:llama-2-7b --parts ppo-64+sft-64 --limit-s 75
measure --parts peer-16 --limit-s 60

# Many small runs share a card well, and better with NVIDIA's MPS.
nvidia-cuda-mps-control -d 2>/dev/null && trap 'echo quit | nvidia-cuda-mps-control' EXIT
left=$((end - SECONDS))
if [ "$left" -gt 60 ]; then
    timeout "$left" "$python" -m benchmarks.choose.run glue --data-dir "$DATA_DIR" --out "$OUT/choose" \
        --workers "$WORKERS" --deadline-s $((left - 60))
fi
"$python" -m benchmarks.choose.run glue --data-dir "$DATA_DIR" --out "$OUT/choose" --report
