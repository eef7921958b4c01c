# The versions of Python that pyproject.toml names, those that this machine has. Each has an environment of its own
# (about 6 GB). PYTHON_TESTS= runs all tests in each (ten minutes a version).

PYTHON_VERSIONS ?= 3.11 3.12 3.13 3.14
PYTHON_TESTS ?= tests/test_layout.py tests/test_api_calls.py tests/test_torchvision_contract.py tests/test_albumentations_contract.py \
    tests/test_saliency_contract.py tests/test_masks_contract.py tests/test_cli.py tests/test_generate.py tests/test_refine_refiner.py \
    tests/test_refine_finetune.py tests/test_datasets.py tests/test_bank.py tests/test_synthetic.py tests/test_ray.py

test-pythons: ## run the main tests under each Python that this machine has
	@set -e; for version in $(PYTHON_VERSIONS); do \
	    if python=$$($(PYTHON) make/pythons.py $$version); then \
	        $(MAKE) --no-print-directory .venv-python$$version/.ready INTERPRETER=$$python; \
	        echo "== Python $$version"; .venv-python$$version/bin/pytest -q $(SIDE_BY_SIDE) $(PYTHON_TESTS); \
	    else echo "== Python $$version: not on this machine"; fi; \
	done

.venv-python%/.ready: pyproject.toml constraints.txt make/pythons.mk
	@rm -rf $(@D)
	@$(STEP) "Create $(@D)" $(INTERPRETER) -m venv $(@D)
	@$(STEP) "Install into $(@D)" $(@D)/bin/python -m pip install \
	    --disable-pip-version-check --no-input --no-compile --progress-bar off -c constraints.txt -e '.[dev,diffusion,docs,ray]'
	@$(COMPILE) $(@D)
	@touch $@

.PHONY: test-pythons
