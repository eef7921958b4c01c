# What only a GPU can tell: one command of less than eight minutes, for a machine that is lent for an hour. It needs
# torch, torchvision and transformers there, and no network; what else is missing comes as wheels in a folder, which
# `make gpu-wheels WHEELS=DIR` fills where there is one. What is missing all the same is told, and the rest runs.
# `make gpu DEVICE=cpu SIZE=toy` is the rehearsal.

GPU_PYTHON ?= python3
DEVICE     ?= cuda
SIZE       ?= full
WHEELS     ?=
GPU        ?=
# Python of the machine with the GPU: compiled wheels are of one version.
GPU_VERSION ?= 3.12
GPU_NEEDS  := captum matplotlib contourpy cycler fonttools kiwisolver pyparsing python-dateutil six timm pillow \
    diffusers peft accelerate psutil importlib-metadata zipp requests charset-normalizer idna urllib3 certifi regex \
    pytest iniconfig pluggy pygments albumentations albucore simsimd stringzilla pydantic pydantic-core annotated-types \
    typing-inspection eval-type-backport

gpu: ## tests, mixing, Grad-CAM and refining on a GPU, into gpu/results.md: WHEELS=DIR (8 minutes)
	@for wheel in $(wildcard $(WHEELS)/*.whl); do \
	    $(GPU_PYTHON) -m pip install --quiet --disable-pip-version-check --no-index --no-deps --upgrade \
	        --target .gpu-packages "$$wheel" || echo "left out: $$wheel"; done
	@PYTHONPATH="$(CURDIR):$(CURDIR)/.gpu-packages:$$PYTHONPATH" $(GPU_PYTHON) -m benchmarks.gpu --device $(DEVICE) --size $(SIZE) $(GPU)

gpu-wheels: $(READY) ## fetch what a machine with a GPU may lack: WHEELS=DIR GPU_VERSION=3.12
	@$(BIN)/python -m pip download --disable-pip-version-check --no-deps -c constraints.txt --dest $(WHEELS) \
	    --only-binary=:all: --python-version $(GPU_VERSION) --implementation cp --abi cp$(subst .,,$(GPU_VERSION)) --abi abi3 --abi none \
	    --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 --platform any $(GPU_NEEDS)

.PHONY: gpu gpu-wheels
