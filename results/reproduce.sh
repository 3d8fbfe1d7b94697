#!/usr/bin/env bash
# Makes every run of results/PLAN.md, in the plan's order:
#
#   CIFAR=folder HUMAN=CIFAR-10_human.pt bash results/reproduce.sh
#
# CIFAR holds cifar-10-batches-py/ (generate.py downloads it if it is missing), HUMAN is the label
# file of CIFAR-10N. Each command skips what is complete and goes on with what was interrupted.
# Further words are flags for every study.py, such as --list.
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python}
CIFAR=${CIFAR:-data}
HUMAN=${HUMAN:-CIFAR-10_human.pt}:worse_label

BATCH="self-distillation"
PREVIOUS="self-distillation --teacher previous-epoch"

# Main: 54 runs, 8 to 9 minutes each on one thread.
MAIN_DATA="--data-dir $CIFAR --train-size 12000 --val-size 2000"
MAIN="--model small_cnn --lr 0.05 --ema-decay 0.99 --no-augment --no-amp --sample-size 5000"
$PYTHON study.py --data cifar10 --name main --noise pair symmetric "$HUMAN" \
  --seeds 6 7 8 9 10 11 --loss cross-entropy "$BATCH" "$PREVIOUS" \
  --generate "$MAIN_DATA" --train "$MAIN --epochs 40" "$@"

# Does the average stand for annealing? 18 runs of 12 epochs.
$PYTHON study.py --data cifar10 --name short --noise pair symmetric "$HUMAN" \
  --seeds 6 7 8 --loss cross-entropy "$PREVIOUS" \
  --generate "$MAIN_DATA" --train "$MAIN --epochs 12" "$@"
