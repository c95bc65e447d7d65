"""Rank allocation methods, one file each, behind one contract (base.py)."""

from __future__ import annotations
