# The pipeline's map: each target names the files it makes and the files it needs, so that a second
# make does nothing and an interrupted one goes on.
#
#   make demo      the whole pipeline on the built-in shapes, on any machine
#   make test      the tests
#   make bench     the timings of benchmarks/
#   make paper     the pipeline on CIFAR-10, 26 2x32d, on a GPU
#   make laptop IMAGES=folder    the study of the README on a folder of CIFAR-10's images
#   make study NOISE=pair RATE=0.4 SEEDS="0 1 2"    any other, by the variables below

.PHONY: demo test lint bench paper laptop study setting clean FORCE
.DELETE_ON_ERROR:

PYTHON = .venv/bin/python
CORES := $(shell getconf _NPROCESSORS_ONLN)

# A study is the losses and seeds on each of its settings: a noise at a rate, one data set each.
NOISE = pair
RATE = 0.4
NOISES = $(NOISE)
RATES = $(RATE)
SEEDS = 0
LOSSES = dis0 dis1
IMAGES = cifar10
NAME = $(notdir $(IMAGES))
GENERATE =
NETWORK = shake26-2x32d
TRAIN =
# Runs side by side, as many as the machine has room for; they share the cores.
JOBS = 2

percent = $(shell awk 'BEGIN { print 100 * $(1) }')
DATA = $(NAME)-$(NOISE)$(call percent,$(RATE))
RUNS = $(foreach seed,$(SEEDS),$(foreach loss,$(LOSSES),runs/$(DATA)/$(loss)-$(NETWORK)-seed$(seed)))
FIGURES = $(patsubst %,figures/$(DATA)/%.png,accuracy loss memorization frequency convergence learned_parts spectrum)

demo:
	$(MAKE) study IMAGES=shapes NETWORK=shake14-2x8d GENERATE='--train-size 3000' \
	  TRAIN='--depth 14 --width 8 --epochs 40 --batch-size 64 --lr 0.1 --no-augment'

paper:
	$(MAKE) study JOBS=1

laptop:
	$(MAKE) study NAME=cifar10-jpeg-small NETWORK=small_cnn SEEDS='0 1 2' \
	  LOSSES='dis0 dis1 dis1-previous-epoch' \
	  GENERATE='--train-size 12000 --val-size 2000 --title "CIFAR-10 (JPEG copies)"' \
	  TRAIN='--model small_cnn --epochs 40 --lr 0.05 --probe 5000'

SETTINGS = $(foreach noise,$(NOISES),$(foreach rate,$(RATES),$(noise)-at-$(rate)))
HISTORIES = $(foreach rate,$(RATES),runs/$(NAME)-$(1)$(call percent,$(rate))/history.json)

study: .venv/installed
	+OMP_NUM_THREADS=$$(( ($(CORES) + $(JOBS) - 1) / $(JOBS) )) \
	  $(MAKE) -j$(JOBS) --output-sync=line $(SETTINGS)
	$(if $(word 2,$(RATES)),$(foreach noise,$(NOISES), \
	  $(PYTHON) plot.py $(call HISTORIES,$(noise)) --out figures/$(NAME)-$(noise) &&) true)

$(SETTINGS): FORCE
	+@$(MAKE) --no-print-directory setting NOISE=$(firstword $(subst -at-, ,$@)) \
	  RATE=$(lastword $(subst -at-, ,$@))

setting: $(FIGURES)

data/$(DATA).npz: | .venv/installed
	$(PYTHON) generate.py --dataset "$(IMAGES)" --noise $(NOISE) --rate $(RATE) $(GENERATE) --out $@

# A loss's flags from its name: dis0, dis1, dis1-previous-epoch, dis1-soft, dis1-weight0.2 ...
flags = --dis=$(patsubst dis%,%,$(firstword $(subst -, ,$(1)))) \
  $(foreach teacher,previous-epoch uniform,$(if $(findstring $(teacher),$(1)),--teacher=$(teacher))) \
  $(if $(findstring soft,$(1)),--soft) \
  $(if $(findstring weight,$(1)),--weight=$(lastword $(subst -weight, ,$(1))))

# `done` marks a run that is complete; one that is not goes on from its checkpoint.
define run_rule
runs/$(DATA)/$(1)-$(NETWORK)-seed$(2)/done: data/$(DATA).npz
	$$(PYTHON) train.py $(strip $(call flags,$(1))) --seed=$(2) --data $$< \
	  --run $(1)-$(NETWORK)-seed$(2) $$(TRAIN) \
	  $$$$(test ! -e $$(@D)/config.json || echo --resume)
	touch $$@
endef
$(foreach seed,$(SEEDS),$(foreach loss,$(LOSSES),$(eval $(call run_rule,$(loss),$(seed)))))

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
	$(PYTHON) benchmarks/training_speed.py
	$(PYTHON) benchmarks/frequency_speed.py --repeats 1

lint: .venv/installed
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

.venv/installed: requirements.txt
	python3 -m venv .venv
	.venv/bin/python -m pip install --quiet --requirement requirements.txt
	touch $@

clean:
	rm -rf .venv
