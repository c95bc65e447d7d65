"""Rank allocation methods, one file each, behind one contract (base.py)."""
