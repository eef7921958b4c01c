"""Training scripts for the four tasks of the paper, each a file to read from top to bottom.

``python -m sgdmix_albu.recipes.fine_grained --help``, and ``long_tail``, ``few_shot``, ``background`` alike:

* ``fine_grained``, ``long_tail``, ``few_shot`` and ``background``: the code of one task.
* ``parts``: the images for training, for selecting the epoch, and for the test.
* ``settings``: hyper-parameters, and where they come from.
* ``training``: the loop.
* ``measures``: accuracies.
* ``arguments``: the arguments of all recipes.
* ``command``: the steps of an experiment.
* ``checks``: what is checked before it starts.
* ``record``: what it writes.
"""
