"""One import for whoever writes a method or a task.

    from rankbench.plugin import AdapterSet, Allocator, Field, Probe, Settings

The contracts stand in rankbench.methods.base and rankbench.tasks.base; examples/weight_norm is a whole package.
"""

from pydantic import Field

from rankbench.config.registry import register
from rankbench.config.schema import Settings
from rankbench.core.adapter_set import AdapterSet
from rankbench.core.site_adapter import Gate
from rankbench.core.sites import Site
from rankbench.methods.base import Allocator, MethodError, Probe, RunContext, Step
from rankbench.tasks.base import DataError, Task

__all__ = [
    "AdapterSet",
    "Allocator",
    "DataError",
    "Field",
    "Gate",
    "MethodError",
    "Probe",
    "RunContext",
    "Settings",
    "Site",
    "Step",
    "Task",
    "register",
]
