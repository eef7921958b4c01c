"""Training scripts for the four tasks of the specification, each a file to read from top to bottom.

``python -m sgdmix_albu.recipes.fine_grained --help``, and ``long_tail``, ``few_shot``, ``background`` alike:

* ``fine_grained``, ``long_tail``, ``few_shot`` and ``background``: what is particular to a task.
* ``parts``: which images train, which choose the epoch, which judge.
* ``settings``: hyper-parameters, and whose they are.
* ``training``: the loop.
* ``measures``: accuracies.
* ``arguments``: what every recipe asks for.
* ``command``: the course of an experiment.
* ``checks``: what is looked at before it begins.
* ``record``: what is written of it.
"""
