# make demo     early stopping and memorization on built-in shapes, on any machine
# make test     all tests; make quick leaves out those that take seconds
# make lint     ruff
# make bench    the timings of benchmarks/
# make paper    CIFAR-10, 26 2x32d, 300 epochs, three seeds: on all GPUs, one run on each
# make gpu      on a machine with a GPU: its tests, its speeds, then make paper
#
# study.py skips what is complete, so a second make demo or make paper goes on where it stopped.

.PHONY: demo test quick lint bench paper gpu
.DELETE_ON_ERROR:

PYTHON = .venv/bin/python

# Only this Python is installed; another one, as in `make test PYTHON=python3`, is used as it is.
ifeq ($(PYTHON),.venv/bin/python)
SETUP = .venv/installed
endif

demo: $(SETUP)
	$(PYTHON) study.py --data shapes --noise pair --seeds 0 \
	  --loss cross-entropy "self-distillation --teacher previous-epoch" \
	  --generate "--train-size 2400 --val-size 400" --jobs 2 \
	  --train "--model small_cnn --epochs 20 --batch-size 64 --lr 0.02 --ema-decay 0.97 \
	  --no-augment --sample-size 1000"

test: $(SETUP)
	$(PYTHON) -m pytest

quick: $(SETUP)
	$(PYTHON) -m pytest -m "not slow"

lint: $(SETUP)
	$(PYTHON) -m ruff check . && $(PYTHON) -m ruff format --check .

bench: $(SETUP)
	$(PYTHON) benchmarks/training_speed.py && $(PYTHON) benchmarks/frequency_speed.py && \
	  $(PYTHON) benchmarks/tangent_kernel_speed.py

# On a GPU a step of this network is some 950 short kernels, which Python would launch one by one;
# --compile fuses them and records CUDA graphs. It was never run on a GPU: where it fails there,
# `make paper COMPILE=` trains without it.
COMPILE = --compile

paper: $(SETUP)
	$(PYTHON) study.py --data cifar10 --noise pair --rate 0.4 --seeds 0 1 2 \
	  --loss cross-entropy self-distillation --generate "--val-size 5000" \
	  --train "--epochs 300 --ema-decay 0.997 $(COMPILE)"

# Never run on a GPU. A step that fails or takes too long does not stop the next: the leading `-`.
gpu: $(SETUP)
	-timeout 300 $(PYTHON) -m pytest -m cuda
	-timeout 400 $(PYTHON) benchmarks/training_speed.py --device cuda --network shake26-2x32d \
	  --variants amp amp+compile --images 80000
	-timeout 180 $(PYTHON) benchmarks/frequency_speed.py --device cuda
	$(MAKE) paper

.venv/installed: requirements.txt
	@echo "installing $< into .venv: a few minutes and 6 GB; pip is silent while it unpacks"
	python3 -m venv .venv && .venv/bin/python -m pip install --requirement $< && touch $@
