"""Federated, multi-site training of ECG heart-failure risk models.

The packages are in the order of the data's way: signals, cohort, text, model, objectives, evaluation, training,
federation, report. README.md has the map.
"""

import os

# Threads that wait for each other by spinning stop everything as soon as another process wants a core: with one
# busy neighbour on two cores a training step took 47 ms a record instead of 1.5 ms. Must be set before torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
