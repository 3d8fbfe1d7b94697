#!/usr/bin/env bash
# Makes every run of results/PLAN.md, in the plan's order, then every committed number and figure:
#
#   CIFAR=folder HUMAN=CIFAR-10_human.pt bash results/reproduce.sh
#
# CIFAR holds cifar-10-batches-py/ (generate.py downloads it if it is missing), HUMAN is the label
# file of CIFAR-10N. Each command skips what is complete and goes on with what was interrupted.
# Further words are flags for every study.py: --list only prints the training commands.
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python}
CIFAR=${CIFAR:-data}
HUMAN=${HUMAN:-CIFAR-10_human.pt}:worse_label

BATCH="self-distillation"
PREVIOUS="self-distillation --teacher previous-epoch"
MAIN_DATA="--data-dir $CIFAR --train-size 12000 --val-size 2000"
ALL_DATA="--data-dir $CIFAR --train-size 50000 --val-size 5000"
SHAKE_DATA="--data-dir $CIFAR --train-size 6000 --val-size 1000 --test-size 2000"
SMALL="--model small_cnn --lr 0.05 --no-augment --no-amp --sample-size 5000"

# Main: 54 runs, 8 to 9 minutes each on one thread.
$PYTHON study.py --data cifar10 --name main --noise pair symmetric "$HUMAN" \
  --seeds 6 7 8 9 10 11 --loss cross-entropy "$BATCH" "$PREVIOUS" \
  --generate "$MAIN_DATA" --train "$SMALL --ema-decay 0.99 --epochs 40" "$@"

# Does the average stand for annealing? 18 runs of 12 epochs.
$PYTHON study.py --data cifar10 --name short --noise pair symmetric "$HUMAN" \
  --seeds 6 7 8 --loss cross-entropy "$PREVIOUS" \
  --generate "$MAIN_DATA" --train "$SMALL --ema-decay 0.99 --epochs 12" "$@"

# All images: 9 runs, then 3.
$PYTHON study.py --data cifar10 --name all --noise "$HUMAN" \
  --seeds 6 7 8 --loss cross-entropy "$BATCH" "$PREVIOUS" \
  --generate "$ALL_DATA" --train "$SMALL --ema-decay 0.997 --epochs 30" "$@"
$PYTHON study.py --data cifar10 --name all --noise pair \
  --seeds 6 --loss cross-entropy "$BATCH" "$PREVIOUS" \
  --generate "$ALL_DATA" --train "$SMALL --ema-decay 0.997 --epochs 30" "$@"

# Shake-shake: 9 runs. The gate: the first run ends with a memorization gap above 50
# points; otherwise all of them are trained again with 150 epochs, once (--name shake150).
$PYTHON study.py --data cifar10 --name shake --noise pair \
  --seeds 6 7 8 --loss cross-entropy "$BATCH" "$PREVIOUS" --generate "$SHAKE_DATA" \
  --train "--depth 14 --width 16 --lr 0.1 --ema-decay 0.99 --epochs 100 --no-augment --no-amp" "$@"

# The field's baselines, on the data sets of the main study: 27 runs.
$PYTHON study.py --data cifar10 --name main --noise pair symmetric "$HUMAN" \
  --seeds 6 7 8 --loss generalized-cross-entropy early-learning-regularization \
  "self-distillation --teacher uniform --weight 0.1" \
  --generate "$MAIN_DATA" --train "$SMALL --ema-decay 0.99 --epochs 40" "$@"

case " $* " in *" --list "*) exit ;; esac

# Kernels of one seed: minutes.
$PYTHON frequency.py runs/main-pair*-seed6/{cross-entropy,self-distillation-previous-epoch}-seed6 \
  --eigenvectors --kernels gaussian ntk-initial ntk-final --delta 564 --size 1000

shopt -s nullglob  # a noise that was not asked for has no runs
# A history.json for each study. The short trainings are compared with the long ones of the same data
# sets; the baselines stand beside the losses of the same seeds.
collect() { $PYTHON collect_history.py "${@:2}" --digits 4 --out "results/$1/history.json"; }
collect main runs/main-{pair,symmetric,[!ps]}*/{cross-entropy,self-distillation,self-distillation-previous-epoch}-seed*
collect field runs/main-{pair,symmetric,[!ps]}*-seed[678]
collect all runs/all-*
collect shake runs/shake-*
collect short runs/short-{pair,symmetric,[!ps]}* runs/main-*seed[678]/{cross-entropy,self-distillation-previous-epoch}-seed*

# The tables of the pages, and the figures, both from these files.
for study in main field all shake short; do
  $PYTHON collect_history.py results/$study/history.json \
    --readme $(grep -l "<!-- table: [a-z]* $study -->" README.md results/README.md)
done
for study in main field all shake; do
  $PYTHON plot.py results/$study/history.json --out results/$study
done
