# The lower bounds in pyproject.toml are a claim; this is its test. Where it fails, raise the bound.

test-lowest: .venv-lowest/.ready ## run the tests with the oldest versions that pyproject.toml allows
	@.venv-lowest/bin/pytest $(SIDE_BY_SIDE)

.venv-lowest/.ready: pyproject.toml make/lowest.py make/lowest.mk
	@rm -rf .venv-lowest
	@$(STEP) "Create .venv-lowest" $(PYTHON) -m venv .venv-lowest
	@$(PYTHON) make/lowest.py > .venv-lowest/constraints.txt
	@$(STEP) "Install the oldest versions" .venv-lowest/bin/python -m pip install \
	    --disable-pip-version-check --no-input --no-compile --progress-bar off -c .venv-lowest/constraints.txt -e '.[dev,diffusion,docs,ray]'
	@$(COMPILE) .venv-lowest
	@touch $@

.PHONY: test-lowest
