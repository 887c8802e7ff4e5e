#!/bin/sh
# All figures of the GPU that is here, in under 10 minutes, into the README:
#
#     bench/gpu.sh                                                  # on one NVIDIA GPU, with nvcc
#     bench/gpu.sh --device cpu --networks resnet50 --batches 1 --rounds 1        # a rehearsal
#
# In the environment that is active; it installs what is missing. A rehearsal leaves the README.
case " $* " in *" -h "* | *" --help "*) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit ;; esac
set -e
cd "$(dirname "$0")/.."
results=bench/results/gpu.json
case " $* " in *" --device cpu "* | *" --device=cpu "*) results=$(mktemp -d)/gpu.json ;; esac
python -c 'import onnxplain, captum' 2>/dev/null || pip install -e '.[bench,cuda]'
python -c 'import onnxplain_kernels' 2>/dev/null || pip install ./kernels
python -m onnxplain.bench.gpu "$results" "$@"
python -m onnxplain.bench.gpu.table "$results"
case $results in bench/*) python -m onnxplain.bench.readme "$results" README.md ;; esac
