# Pages in a browser: the built site, and the page of `sgdmix explore`, in headless Chromium, driven by Playwright. The
# browser is the system's (apt install chromium); SGDMIX_CHROMIUM names another. Playwright (165 MB) and gradio, which
# needs an older Pillow, are not in .venv: without them these tests are skipped. The .pth file shows this environment
# what .venv holds, as in albumentationsx.mk.

BROWSER_VENV := .venv-browser

test-site: $(BROWSER_VENV)/.ready ## open the built documentation and the reports in headless Chromium
	@$(BROWSER_VENV)/bin/python -m pytest tests/test_site.py tests/test_report_pages.py

test-explore: $(BROWSER_VENV)/.ready ## use the page of `sgdmix explore` in headless Chromium
	@$(BROWSER_VENV)/bin/python -m pytest tests/test_explore.py tests/test_explore_page.py

$(BROWSER_VENV)/.ready: $(READY) make/browser.mk
	@rm -f $@
	@$(STEP) "Create $(BROWSER_VENV)" $(BIN)/python -m venv --clear $(BROWSER_VENV)
	@$(BROWSER_VENV)/bin/python -c "$$X_PTH" "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	@$(STEP) "Install Playwright and gradio" $(BROWSER_VENV)/bin/python -m pip install \
	    --disable-pip-version-check --no-input --progress-bar off playwright==1.65.2 gradio==6.31.0
	@touch $@

.PHONY: test-site test-explore
