# The pipeline's map: each target names the files it makes and the files it needs, so that a second
# make does nothing and an interrupted one goes on.
#
#   make demo      the whole pipeline on the built-in shapes, on any machine
#   make test      the tests
#   make bench     the timings of benchmarks/
#   make paper     the pipeline on CIFAR-10, 26 2x32d, on a GPU
#   make laptop IMAGES=folder    the same at a laptop's scale on a folder of CIFAR-10's images
#   make study ... any other: set the variables below

.PHONY: demo test lint bench paper laptop study clean
.DELETE_ON_ERROR:

PYTHON = .venv/bin/python
CORES := $(shell getconf _NPROCESSORS_ONLN)

# A study is one data set, two losses and some seeds.
DATA = cifar10-pair40
GENERATE = --dataset cifar10 --noise pair --rate 0.4
NETWORK = shake26-2x32d
TRAIN =
NOISE = pair
SEEDS = 0

RUNS = $(foreach seed,$(SEEDS),$(foreach dis,0 1,runs/$(DATA)/dis$(dis)-$(NETWORK)-seed$(seed)))
FIGURES = $(patsubst %,figures/$(DATA)/%.png,accuracy loss memorization frequency convergence learned_parts spectrum)
# Runs side by side (make -j) share the cores; more threads than cores are slower.
SIDE_BY_SIDE = OMP_NUM_THREADS=$$(( ($(CORES) + 1) / 2 )) $(MAKE) -j2 --output-sync=line study

demo: .venv/installed
	+$(SIDE_BY_SIDE) DATA=shapes-pair40 GENERATE='--dataset shapes --noise pair --rate 0.4 --train-size 3000' \
	  NETWORK=shake14-2x8d SEEDS='$(SEEDS)' \
	  TRAIN='--depth 14 --width 8 --epochs 40 --batch-size 64 --lr 0.1 --no-augment'

paper: .venv/installed
	$(MAKE) study SEEDS='$(SEEDS)'

laptop: .venv/installed
	+$(SIDE_BY_SIDE) DATA=cifar10-jpeg-small-$(NOISE)40 NETWORK=small_cnn SEEDS='0 1' \
	  GENERATE='--dataset "$(IMAGES)" --noise $(NOISE) --train-size 10000 \
	    --title "CIFAR-10 (JPEG copies)"' \
	  TRAIN='--model small_cnn --epochs 40 --lr 0.05'

study: $(FIGURES)

data/$(DATA).npz: | .venv/installed
	$(PYTHON) generate.py $(GENERATE) --out $@

# `done` marks a run that is complete; one that is not goes on from its checkpoint.
$(RUNS:%=%/done): runs/$(DATA)/dis%/done: data/$(DATA).npz
	$(PYTHON) train.py --dis=$(firstword $(subst -, ,$*)) --seed=$(lastword $(subst -seed, ,$*)) \
	  --data $< --run dis$* $(TRAIN) $$(test ! -e $(@D)/config.json || echo --resume)
	touch $@

# All runs share one pass over the data set.
$(RUNS:%=%/frequency.json) &: $(RUNS:%=%/done)
	OMP_NUM_THREADS=$(CORES) $(PYTHON) frequency.py $(RUNS)

runs/$(DATA)/history.json: $(RUNS:%=%/frequency.json)
	$(PYTHON) collect_history.py $(RUNS) --out $@

$(FIGURES) &: runs/$(DATA)/history.json
	$(PYTHON) plot.py $< --out $(@D)

test: .venv/installed
	$(PYTHON) -m pytest

bench: .venv/installed
	$(PYTHON) benchmarks/shake_speed.py
	$(PYTHON) benchmarks/frequency_speed.py

lint: .venv/installed
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

.venv/installed: requirements.txt
	python3 -m venv .venv
	.venv/bin/python -m pip install --quiet --requirement requirements.txt
	touch $@

clean:
	rm -rf .venv
