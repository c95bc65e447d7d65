"""One import for whoever writes a method or a task.

    from rankbench.plugin import AdapterSet, Allocator, Field, Probe, Settings

The contracts: rankbench.methods.base for methods, rankbench.tasks.base for tasks, rankbench.config.schema for their
settings. examples/weight_norm is a whole package.
"""

from pydantic import Field

from rankbench.config.registry import register
from rankbench.config.schema import Settings
from rankbench.core.adapter_set import AdapterSet
from rankbench.core.site_adapter import Gate
from rankbench.core.sites import Site
from rankbench.methods.base import Allocator, MethodError, Probe, Setting, Step
from rankbench.tasks.base import DataError, Task

__all__ = [
    "AdapterSet",
    "Allocator",
    "DataError",
    "Field",
    "Gate",
    "MethodError",
    "Probe",
    "Setting",
    "Settings",
    "Site",
    "Step",
    "Task",
    "register",
]
