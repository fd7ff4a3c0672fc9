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
    # For the scripts, whose own Python would prefer an installed package, perhaps of another version.
    others = [
        folder
        for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep)
        if folder not in ("", LIBRARY)
    ]
    os.environ["PYTHONPATH"] = os.pathsep.join([LIBRARY, *others])
else:
    CATALOGUE_FILE = Path(workflow.source_path("../config/checkpoints.yaml"))
    if find_spec("volprompt") is None:
        raise WorkflowError(
            f"The rules come from {RULES}, and {sys.executable} lacks the Python package volprompt that they use: install "
            f"it with `{sys.executable} -m pip install git+https://{RULES.host}/{RULES.repo}@{RULES.ref}`."
        )
