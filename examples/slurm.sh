#!/usr/bin/env bash
# The whole job on several machines under SLURM, eight GPUs each:
#
#     sbatch --nodes=2 --ntasks-per-node=1 --gpus-per-node=8 examples/slurm.sh recipe.yaml /shared/results
#
# The output folder and HF_MDFT_CACHE must lie where all machines see them: what one makes the others read.
set -euo pipefail
export RECIPE=$1 OUTPUT=$2 PER_MACHINE=${3:-8}
export HF_MDFT_CACHE=${HF_MDFT_CACHE:-$OUTPUT/cache}
MAIN=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MAIN
srun bash -c 'accelerate launch --multi_gpu --num_machines "$SLURM_NNODES" --machine_rank "$SLURM_NODEID" \
    --num_processes "$((SLURM_NNODES * PER_MACHINE))" --main_process_ip "$MAIN" --main_process_port 29500 \
    --mixed_precision no --dynamo_backend no -m hf_mdft run "$RECIPE" --output-dir "$OUTPUT"'
