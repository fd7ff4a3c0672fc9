# Which results are not what the configuration asks for. Stamps tell it; of data in storage, where what a result was made
# from cannot be read at planning, Snakemake's own records do.
import os
from pathlib import Path

from snakemake.logging import logger

from volprompt.logs import logging_to_console
from volprompt.study.stamps import write_stamps


def is_there(path):
    """Whether a file exists, in storage where files lie there. Not for input functions, which may not ask storage."""
    # Snakemake's own function, which looks for `workflow` among the names of its caller.
    return exists(path)


# Whether there are results, and Snakemake, which keeps its records in files or in a database, has none of anything.
RECORDS_ARE_LOST = (
    IN_STORAGE
    and workflow.is_main_process
    and not any(Path(".snakemake").glob("metadata/*"))
    and not Path(".snakemake", "metadata.db").exists()
    and is_there(f"{STUDY.settings.results}/prompts/{min(STUDY.shards)}.json")
)
# Jobs read the workflow again; only the process that plans compares results with the configuration.
SHARDS_TO_CONVERT = []
if workflow.is_main_process and IN_STORAGE:
    logger.info(
        "The data lie in storage: Snakemake's own records (.snakemake) plan, by inputs, times and parameters."
    )
elif workflow.is_main_process:
    try:
        with logging_to_console("plan"):
            SHARDS_TO_CONVERT = write_stamps(STUDY)
    except VolpromptError as error:
        raise WorkflowError(str(error)) from None


def rows_to_convert(wildcards):
    """The rows of all shards that this run converts: a target may ask for some of them alone."""
    asked = {os.path.normpath(path) for job in workflow.dag.jobs for path in job.output}
    shards = [
        shard
        for shard in SHARDS_TO_CONVERT
        if os.path.normpath(f"{STUDY.settings.results}/volumes/{shard}") in asked
    ]
    # The check itself as the target converts none, and checks all.
    rows = [STUDY.shards[shard] for shard in shards or SHARDS_TO_CONVERT]
    volumes = {row.volume for listed in rows for row in listed}
    return [row.plain() for row in STUDY.volumes if row.volume in volumes]


def stamp(path):
    """The stamp of an output, which planning writes; of an output in storage it has nothing to say."""
    return require_records if IN_STORAGE else path


def require_records(wildcards):
    """No input. Raises WorkflowError where Snakemake's records are lost, or not to be compared with what is asked for."""
    if not workflow.is_main_process:
        return []
    asked = {trigger.item_to_choice() for trigger in workflow.rerun_triggers}
    if not {"input", "mtime", "params"} <= asked:
        raise WorkflowError(
            "Data in storage need Snakemake's own records: what a result was made from cannot be read there before a "
            "job. Add --rerun-triggers input mtime params software-env to the command."
        )
    if RECORDS_ARE_LOST and not workflow.dag_settings.forceall:
        raise WorkflowError(
            "There are results in storage, and no records of them in .snakemake/metadata, so that nothing tells "
            "whether they are what is asked for. Run in the folder where they were made, or add --forceall."
        )
    return []


def compared(files):
    """Files whose bytes planning compares, so that their times say nothing; in storage the times are all there is."""
    return files if IN_STORAGE else ancient(files)
