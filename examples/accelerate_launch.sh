#!/usr/bin/env bash
# The whole job on several processes. The same recipe gives the same coefficients on any number of them.
#
#     bash examples/accelerate_launch.sh recipe.yaml output 2
set -euo pipefail
recipe=$1 output=$2 processes=${3:-2}
# On a machine without GPUs, '--multi_gpu' is what makes accelerate start several processes; put 'use_cpu: true' under
# 'meta' and 'specialize' of the recipe. With GPUs nothing needs to change.
accelerate launch --multi_gpu --num_processes "$processes" --num_machines 1 --mixed_precision no --dynamo_backend no \
    -m hf_mdft run "$recipe" --output-dir "$output"
