"""What an error makes of a run: the status and the reason in its record.

Two other places decide a status: training/run.py (over_budget, inert) for a run that ended without an error, and
launching/local_pool.py (timeout, killed, a crash) for one that left no record.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rankbench import RankbenchError
from rankbench.files import disk_is_full
from rankbench.methods.base import InertError
from rankbench.records.run_folder import StoreError
from rankbench.training.trainer import NotFiniteError

USER_ERRORS = (RankbenchError, OSError)  # the user can mend them: their message says it all
# In torch's RuntimeError: on a CPU, and where CUDA or its libraries take memory outside torch's allocator.
NO_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


@dataclass(frozen=True)
class Failure:
    """How a run failed.

    Attributes:
        status: one of a record's STATUSES.
        reason: sentence for the record.
        unforeseen: whether the traceback is needed to understand it: the reason then says where that is.
        traceback: whether it is kept in the run's folder.
    """

    status: str
    reason: str
    unforeseen: bool = False
    traceback: bool = False


def failure_of(error: BaseException) -> Failure | None:
    """Status and reason of a run that ended in this error; None where it is not the run's fault.

    Not the run's fault are a folder that holds what is not this run's, and a full disk: the run leaves no record, and
    goes on from its checkpoint.
    """
    if isinstance(error, StoreError) or (isinstance(error, Exception) and disk_is_full(error)):
        return None
    if isinstance(error, NotFiniteError):
        return Failure("nan", str(error))
    if isinstance(error, InertError):
        return Failure("inert", str(error))
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return Failure("oom", str(error) or "out of memory")
    if isinstance(error, SystemExit):
        return Failure("error", f"it called sys.exit({error.code!r})", unforeseen=True, traceback=True)
    if any(words in str(error) for words in NO_MEMORY):
        return Failure("oom", str(error).splitlines()[0])
    if isinstance(error, USER_ERRORS):
        return Failure("error", str(error), traceback=True)
    return Failure("error", f"{type(error).__name__}: {error}", unforeseen=True, traceback=True)
