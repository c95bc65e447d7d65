"""One import for whoever writes a method or a task.

    from rankbench.plugin import AdapterSet, Allocator, Field, Probe, Settings

The contracts stand in rankbench.methods.base and rankbench.tasks.base; examples/weight_norm and examples/task are whole
packages, with a method and with a task.
"""

from pydantic import Field

from rankbench.config.registry import register
from rankbench.config.schema import Settings
from rankbench.core.adapter_set import AdapterSet
from rankbench.core.seeding import Streams
from rankbench.core.site_adapter import Gate
from rankbench.core.sites import Site
from rankbench.methods.base import Allocator, MethodError, Probe, RunContext, Step
from rankbench.tasks.base import IGNORE, Batch, DataError, Evaluation, Example, Task

__all__ = [
    "IGNORE",
    "AdapterSet",
    "Allocator",
    "Batch",
    "DataError",
    "Evaluation",
    "Example",
    "Field",
    "Gate",
    "MethodError",
    "Probe",
    "RunContext",
    "Settings",
    "Site",
    "Step",
    "Streams",
    "Task",
    "register",
]
