# make demo     the whole pipeline on built-in shapes, on any machine
# make test     all tests; make quick leaves out those that take seconds
# make lint     ruff
# make bench    the timings of benchmarks/
# make paper    CIFAR-10, 26 2x32d, 300 epochs, three seeds: on all GPUs, one run on each
# make gpu      ten minutes on a GPU: CUDA tests, speeds, then make paper as far as it comes
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
	$(PYTHON) study.py --data shapes --noise pair --seeds 0 --loss cross-entropy self-distillation \
	  --generate "--train-size 2400 --val-size 400" --jobs 2 \
	  --train "--model small_cnn --epochs 30 --batch-size 64 --lr 0.05 --no-augment --sample-size 1000"

test: $(SETUP)
	$(PYTHON) -m pytest

quick: $(SETUP)
	$(PYTHON) -m pytest -m "not slow"

lint: $(SETUP)
	$(PYTHON) -m ruff check . && $(PYTHON) -m ruff format --check .

bench: $(SETUP)
	$(PYTHON) benchmarks/shake_speed.py && $(PYTHON) benchmarks/training_speed.py && \
	  $(PYTHON) benchmarks/frequency_speed.py --repeats 1 && $(PYTHON) benchmarks/tangent_kernel_speed.py

paper: $(SETUP)
	$(PYTHON) study.py --data cifar10 --noise pair --rate 0.4 --seeds 0 1 2 \
	  --loss cross-entropy self-distillation --train "--epochs 300"

# OUT is the folder of its records, as in `make gpu PYTHON=python3 OUT=records`.
gpu: $(SETUP)
	$(PYTHON) benchmarks/gpu.py

.venv/installed: requirements.txt
	@echo "installing $< into .venv: a few minutes and 6 GB; pip is silent while it unpacks"
	python3 -m venv .venv && .venv/bin/python -m pip install --requirement $< && touch $@
