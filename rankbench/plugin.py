"""One import for whoever writes a method or a task.

    from rankbench.plugin import AdapterSet, Allocator, Probe, number

The contracts: rankbench.methods.base for methods, rankbench.tasks.base for tasks. examples/weight_norm is a whole package.
"""

from rankbench.config.registry import register
from rankbench.config.schema import choice, number
from rankbench.core.adapter_set import AdapterSet
from rankbench.core.site_adapter import Gate
from rankbench.core.sites import Site
from rankbench.methods.base import Allocator, MethodError, Probe, Setting, Step
from rankbench.tasks.base import DataError, Task

__all__ = [
    "AdapterSet",
    "Allocator",
    "DataError",
    "Gate",
    "MethodError",
    "Probe",
    "Setting",
    "Site",
    "Step",
    "Task",
    "choice",
    "number",
    "register",
]
