"""A logger for the tests: `--logger jobs` prints each job as a line of JSON, whatever else the console shows."""

from __future__ import annotations

import json
import sys
from logging import LogRecord

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent


class LogHandler(LogHandlerBase):
    """Prints `JOB {...}` with rule, message, wildcards, input and resources."""

    writes_to_stream = False  # the usual console stays
    writes_to_file = False
    has_filter = True  # none: a profile's `quiet` hides nothing
    has_formatter = True
    needs_rulegraph = False

    def emit(self, record: LogRecord) -> None:
        """Print a job's record."""
        if getattr(record, "event", None) != LogEvent.JOB_INFO:
            return
        job = {key: getattr(record, key) for key in ("rule_name", "rule_msg", "wildcards", "input")}
        job["resources"] = dict(record.resources.items())
        sys.stderr.write(f"JOB {json.dumps(job, default=str)}\n")  # a dry run prints everything else on standard output
