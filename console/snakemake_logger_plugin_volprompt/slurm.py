"""What Slurm says of the end of a job, in words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

# How the executor plugin tells of a job that failed: the message of its error.
STATUS = re.compile(r"SLURM-job '(\w+)' failed.*SLURM status is:\s+'(\w+)", re.DOTALL)
CAUSES = {
    "OUT_OF_MEMORY": "it needed more memory than it had asked for{memory}",
    "TIMEOUT": "it ran longer than it had asked for{time}",
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node did not start",
    "PREEMPTED": "a job of higher priority took its place",
    "CANCELLED": "somebody cancelled it",
    "DEADLINE": "it could not end before its deadline",
}
# What Slurm writes into a job's log where its status is FAILED alone.
SIGNS = {
    "OUT_OF_MEMORY": re.compile(r"oom.kill|out of memory|exceeded .*memory limit", re.IGNORECASE),
    "TIMEOUT": re.compile("DUE TO TIME LIMIT"),
    "NODE_FAIL": re.compile("DUE TO NODE FAILURE"),
    "PREEMPTED": re.compile("DUE TO PREEMPTION"),
}


def end_in_words(message: str, log: Sequence[str], asked: Mapping[str, Any]) -> str:
    """Why a job failed, from the plugin's message, the lines of Slurm's log and what the job had asked for.

    A message that is not the plugin's stays as it is. asked: the job's resources, of which mem_mb and runtime are said.
    """
    found = STATUS.search(message)
    if found is None:
        return message
    number, status = found.groups()
    if status == "FAILED":
        status = next((sign for sign, words in SIGNS.items() if any(map(words.search, log))), status)
    cause = CAUSES.get(status, "").format(
        memory=f" ({memory} MB)" if (memory := asked.get("mem_mb")) else "",
        time=f" ({minutes} minutes)" if (minutes := asked.get("runtime")) else "",
    )
    return f"Slurm job {number}: {status}{cause and ', '}{cause}"


def request_in_words(asked: Mapping[str, Any]) -> str:
    """Memory and time that a job asks for: `with 24000 MB and 120 minutes`; empty where it says neither."""
    memory, minutes = asked.get("mem_mb"), asked.get("runtime")
    parts = [f"{memory} MB"] * isinstance(memory, int) + [f"{minutes} minutes"] * isinstance(minutes, int)
    return f"with {' and '.join(parts)}" if parts else ""
