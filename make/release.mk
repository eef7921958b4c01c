# What users get: the wheel, the source distribution, each extra.

dist: $(READY) ## build the wheel and the source distribution into dist/
	@rm -rf dist
	@$(STEP) "Build dist/" $(BIN)/python -m hatchling build

test-release: dist ## install what dist/ holds, bare and with each extra; build the docs and run the tests of the source
	@$(BIN)/python make/release.py dist

.PHONY: dist test-release
