# albumentationsx is imported as `albumentations` too, and is AGPL: it is no dependency, and is tested in an
# environment of its own. That one holds only what differs and sees the rest (torch, ...) in .venv: the .pth
# file appends .venv's site-packages to the path, so that what is installed here comes first.

X_VENV          := .venv-albumentationsx
X_VERSION       ?= 2.5.1
define X_PTH
import pathlib, sys, sysconfig
line = f"import site; site.addsitedir({sys.argv[1]!r})"
pathlib.Path(sysconfig.get_path("purelib"), "dot-venv.pth").write_text(line + "\n")
endef
export X_PTH

test-albumentationsx: $(X_VENV)/.ready ## run the Albumentations tests and examples under albumentationsx
	@$(X_VENV)/bin/python -m pytest --doctest-modules sgdmix_albu/albumentations docs/how-to/albumentations.md \
	    $(wildcard tests/test_albumentations*.py)

$(X_VENV)/.ready: $(READY) make/albumentationsx.mk
	@rm -f $@
	@$(STEP) "Create $(X_VENV)" $(BIN)/python -m venv --clear $(X_VENV)
	@$(X_VENV)/bin/python -c "$$X_PTH" "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	@$(STEP) "Install albumentationsx $(X_VERSION)" $(X_VENV)/bin/python -m pip install \
	    --disable-pip-version-check --no-input --progress-bar off albumentationsx==$(X_VERSION)
	@touch $@

.PHONY: test-albumentationsx
