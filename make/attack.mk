# The fault campaign: commands that are stopped, fed with damaged and hostile files, and run against each other. 300 runs
# take about half an hour; `make attack ATTACK="--only kills --runs 300"` for more of one kind.

ATTACK ?=

attack: $(READY) ## stop, damage and deceive the commands, hundreds of times, and count what goes wrong (about half an hour)
	@$(BIN)/python -m tests.attack $(ATTACK)

.PHONY: attack
