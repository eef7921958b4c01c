# Packages around ours that do not belong into .venv: fastai brings spacy and thirty others, ultralytics is AGPL and
# brings a cv2 that overwrites ours, DALI has 900 MB. Their environment holds only what differs and sees the rest in
# .venv, as that of albumentationsx does. It has a Jupyter kernel too, which runs the notebook.

E_VENV     := .venv-ecosystem
E_PACKAGES ?= fastai==2.8.12 ultralytics==8.4.190 nvidia-dali-cuda120==2.4.0 nbclient==0.11.0 ipykernel==7.4.0 \
    ipywidgets==8.1.9

test-ecosystem: $(E_VENV)/.ready ## run the pages of fastai, ultralytics and DALI, and the notebook in Jupyter
	@YOLO_CONFIG_DIR=$(abspath $(E_VENV)) $(E_VENV)/bin/python -m pytest \
	    docs/how-to/fastai.md docs/how-to/ultralytics.md docs/how-to/dali.md \
	    tests/test_with_fastai.py tests/test_with_ultralytics.py tests/test_notebook.py

notebook: $(E_VENV)/.ready ## run docs/notebooks/photographs.ipynb and write its page
	@$(E_VENV)/bin/python -m make.notebook

$(E_VENV)/.ready: $(READY) make/ecosystem.mk
	@rm -f $@
	@$(STEP) "Create $(E_VENV)" $(BIN)/python -m venv --clear $(E_VENV)
	@$(E_VENV)/bin/python -c "$$X_PTH" "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	@$(STEP) "Install fastai, ultralytics, DALI and Jupyter" $(E_VENV)/bin/python -m pip install \
	    --disable-pip-version-check --no-input --progress-bar off -c constraints.txt $(E_PACKAGES)
	@touch $@

.PHONY: test-ecosystem notebook
