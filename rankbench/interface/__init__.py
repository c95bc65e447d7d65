"""The Python interface: what `rankbench.run`, `sweep`, `load` and `report` do and return."""
