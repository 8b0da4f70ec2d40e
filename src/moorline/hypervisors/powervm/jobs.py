"""Runs NovaLink's jobs."""

from __future__ import annotations

from typing import Any

from pypowervm import const
from pypowervm.wrappers.job import Job, JobStatus
from pypowervm.wrappers.virtual_io_server import VIOS

from moorline.errors import Failed, Uncertain


def rescan(adapter: Any, server: str, udid: str, what: str, deadline: float) -> None:
    """Let *server* look at the size of the disk *udid* again.

    Not by ``rescan_vstor``: its ``run_job`` waits 30 minutes, and leaves a
    thread behind that polls for ever.
    Raises Failed, Uncertain (it still runs after *deadline* seconds).
    """
    job = Job.wrap(
        adapter.read(
            VIOS.schema_type,
            root_id=server,
            suffix_type=const.SUFFIX_TYPE_DO,
            suffix_parm="RescanVirtualDisk",
        )
    )
    job.add_job_parameters_to_existing(job.create_job_parameter("VirtualDiskUDID", udid))
    job.entry = adapter.create_job(job.entry.element, VIOS.schema_type, server).entry
    if job.poll_while_status([JobStatus.RUNNING, JobStatus.NOT_ACTIVE], deadline, False):
        raise Uncertain(f"{what}: NovaLink is still at it")
    job.delete_job()
    if job.job_status != JobStatus.COMPLETED_OK:
        raise Failed(f"{what}: {_reason(job)}")


def _reason(job: Any) -> str:
    """Why *job* failed: its result, else its exception, else what else it tells.

    ``get_job_message`` is given no default: it would take it for the result, and
    never look at the exception.
    """
    told = job.get_job_message().strip() or ", ".join(
        f"{name} {value}" for name, value in job.get_job_results_as_dict().items()
    )
    return told or f"the rescan ended as {job.job_status}"
