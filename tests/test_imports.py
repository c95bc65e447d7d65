"""Imports point one way: what trains needs no pandas, what reads records needs no torch."""

import ast
import sys
from functools import cache
from graphlib import TopologicalSorter
from itertools import combinations
from pathlib import Path

import pytest
from harness import python

import rankbench

ROOT = Path(rankbench.__file__).parent
TRAINING = [("config", "seeding", "budget"), ("adapter",), ("allocators",), ("trainer",), ("run",)]
READING = [
    ("record", "store", "sites"),
    ("labels", "rates"),
    ("collect",),
    ("selection", "stats", "published"),
    ("aggregates", "items", "verdict", "pairing"),
    ("tables", "figures", "compare"),
