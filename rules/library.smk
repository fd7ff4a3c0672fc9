# Where the library and the catalogue of checkpoints are: in a checkout beside the rules. Where Snakemake reads the rules
# from a git host (a module with `github(...)`), no folder holds them, and the library is an installed package.
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from snakemake.exceptions import WorkflowError

RULES = workflow.current_basedir

if isinstance(RULES, os.PathLike):
    CATALOGUE_FILE = Path(RULES).parent / "config" / "checkpoints.yaml"
    LIBRARY = str(Path(RULES).parent / "workflow" / "scripts")
    sys.path.insert(0, LIBRARY)
    # For the scripts, which would otherwise prefer an installed package, perhaps of another version.
    folders = [LIBRARY, os.environ.get("PYTHONPATH")]
    os.environ.update(PYTHONPATH=os.pathsep.join(filter(None, folders)))
else:
    CATALOGUE_FILE = Path(workflow.source_path("../config/checkpoints.yaml"))
    # This file says of which version the library is, and what each stage's results depend on. A host gives it without its
    # last line break.
    OURS = Path(workflow.source_path("../workflow/scripts/volprompt/__init__.py"))
    installed = find_spec("volprompt")
    fault = ""
    if installed is None:
        fault = "is not installed"
    elif Path(installed.origin).read_text().split() != OURS.read_text().split():
        fault = f"is installed in another version ({Path(installed.origin).parent})"
    if fault:
        source = f"{RULES.host}/{RULES.repo}@{RULES.ref}"
        raise WorkflowError(
            f"The workflow comes from {source}, but its library {fault}; install it with "
            f"`{sys.executable} -m pip install git+https://{source}`."
        )
