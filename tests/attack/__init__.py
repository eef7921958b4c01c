"""The fault campaign: the package's commands, stopped, fed with damaged and hostile files, and run against each other.

    python -m tests.attack [--runs 300] [--seed 7] [--only kills] [--number 41]

Every run has a number, and does the same for the same seed and number, but for the moment at which a signal arrives.
"""
