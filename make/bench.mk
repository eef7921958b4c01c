# What mixing costs beside its peers: one run, one table, in docs/speed.md. kornia and pytorch-grad-cam are no
# dependencies, so they are in an environment of their own that sees the rest in .venv, as albumentationsx is.
# BENCH="/path/to/photographs" measures on yours; BENCH="--only mixing-uint8" some of it.

BENCH_VENV := .venv-bench
BENCH      ?=
BENCH_TO   ?= --results benchmarks/speed/results.json --write docs/speed.md

bench: $(BENCH_VENV)/.ready ## what mixing costs beside torchvision, timm, kornia and others, into docs/speed.md (8 minutes)
	@OMP_NUM_THREADS=1 $(BENCH_VENV)/bin/python -m benchmarks.speed $(BENCH_TO) $(BENCH)

bench-where: $(READY) ## where mixing belongs: workers, after the loader, from a bank; images a second, into docs/speed.md
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.where --results benchmarks/where/results.json --write docs/speed.md $(BENCH)

# grad-cam asks for opencv-python, which would overwrite the headless one: it comes without what it asks for.
$(BENCH_VENV)/.ready: $(READY) make/bench.mk make/albumentationsx.mk
	@rm -f $@
	@$(STEP) "Create $(BENCH_VENV)" $(BIN)/python -m venv --clear $(BENCH_VENV)
	@$(BENCH_VENV)/bin/python -c "$$X_PTH" "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	@$(STEP) "Install the peers" $(BENCH_VENV)/bin/python -m pip install \
	    --disable-pip-version-check --no-input --progress-bar off kornia==0.9.0 scikit-learn matplotlib
	@$(STEP) "Install pytorch-grad-cam" $(BENCH_VENV)/bin/python -m pip install \
	    --disable-pip-version-check --no-input --progress-bar off --no-deps grad-cam==1.5.7 ttach==0.0.3
	@touch $@

.PHONY: bench bench-where
