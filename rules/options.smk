# Of a `--configfile` or `--config` that is given more than once Snakemake takes the last one alone. Here each adds to those
# before it, as the values of one do. Jobs are given all of them, too.
import sys
from pathlib import Path

from snakemake.cli import parse_config
from snakemake.common.configfile import load_configfile
from snakemake.exceptions import WorkflowError
from snakemake.settings.types import ConfigSettings
from snakemake.utils import update_config

from volprompt.errors import VolpromptError
from volprompt.settings.options import require_one_use, uses_of

# Another program may call Snakemake as a library, with options of its own.
COMMAND = sys.argv if Path(sys.argv[0]).name in ("snakemake", "__main__.py") else []
FILES = uses_of(COMMAND, "--configfile", "--configfiles")
VALUES = uses_of(COMMAND, "--config", "-C")
REPEATED = workflow.is_main_process and max(len(FILES), len(VALUES)) > 1

# A workflow that uses this one as a module has read its configuration already.
if REPEATED and not workflow.modifier.is_main_snakefile():
    try:
        require_one_use("--configfile", FILES)
        require_one_use("--config", VALUES)
    except VolpromptError as error:
        raise WorkflowError(str(error)) from None

if REPEATED:
    given = workflow.config_settings
    files = [Path(workflow.rundir, file) for use in FILES for file in use]
    values = [value for use in VALUES for value in use]
    workflow.config_settings = ConfigSettings(
        config=parse_config(values) if values else given.config,
        configfiles=files or given.configfiles,
        config_args=values or given.config_args,
        replace_workflow_config=given.replace_workflow_config,
    )
    # Those that the workflow itself names come after those of the command, whose values change theirs.
    own = workflow.configfiles[len(given.configfiles) :]
    workflow.configfiles[:] = [*workflow.config_settings.configfiles, *own]
    config.clear()
    for file in own:
        update_config(config, load_configfile(file))
    update_config(config, workflow.config_settings.overwrite_config)
