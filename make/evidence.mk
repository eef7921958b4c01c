# The grids of docs/results.md. DATA is a tree train/CLASS/*.jpg and test/CLASS/*.jpg, MAPS what benchmarks.accuracy.segment
# wrote of it, ENCODER the pretrained network; EVIDENCE="--grids 01-tasks --workers 2" for some of it, or side by side.

EVIDENCE ?=

evidence: $(READY) ## make the runs of the results page that are missing: DATA=DIR MAPS=DIR ENCODER=FILE (hours)
	@$(BIN)/python -m benchmarks.accuracy run $(DATA) $(MAPS) $(ENCODER) $(EVIDENCE)

evidence-page: $(READY) ## draw docs/results.md from benchmarks/accuracy/results.jsonl
	@$(BIN)/python -m benchmarks.accuracy page

.PHONY: evidence evidence-page
