"""A folder for a study of one's own: configuration, empty tables, profiles, and the workflow as a module."""

from __future__ import annotations

import json
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, StrictUndefined

import volprompt
from volprompt.errors import VolpromptError
from volprompt.files import write_text

# The files of a folder. The profiles are links to this repository's. None is called `default`, since Snakemake merges a
# profile of that name into every run: its `cores: all` would bound what a cluster is asked for.
TEMPLATES = Path(__file__).parent / "templates"
REPOSITORY = Path(volprompt.__file__).resolve().parents[3]
ENTRY = "workflow/Snakefile"
# Only where there is a checkout, whose demo it takes its models from.
REHEARSAL = Path("config", "rehearsal.yaml")


class StudyFolderError(VolpromptError):
    """A folder that would be overwritten, or a workflow that cannot be found."""


@dataclass(frozen=True)
class Workflow:
    """Where a study takes the workflow from, in the words of its files.

    snakefile: what the Snakefile says of the module's place; documents: folder or address of the documents;
    environment: how a shell finds `volprompt` and `snakemake`; demo: the folder of the demo's models, None without a
    checkout.
    """

    snakefile: str
    documents: str
    environment: str
    demo: Path | None = None


def workflow_here() -> Workflow:
    """The checkout that this library is part of. Raises StudyFolderError for an installed package."""
    if not (REPOSITORY / ENTRY).is_file():
        raise StudyFolderError(
            f"{volprompt.__file__}: is an installed package; expected a checkout with the workflow. Name a published "
            f"one: --from github.com/volprompt/volprompt@v{volprompt.__version__}"
        )
    activate = Path(sys.prefix) / "bin" / "activate"
    environment = f"In a new shell first:\n\n    source {activate}" if activate.is_file() else ""
    return Workflow(json.dumps(str(REPOSITORY / ENTRY)), str(REPOSITORY), environment, REPOSITORY / "demo")


def workflow_at(address: str) -> Workflow:
    """A published workflow: `owner/name@tag` on GitHub, `host/owner/name@tag` elsewhere.

    In place of the tag may be a commit's 40 digits. Raises StudyFolderError for anything else.
    """
    place, _, tag = address.rpartition("@")
    parts = place.removeprefix("https://").removesuffix(".git").split("/")
    host = parts.pop(0) if len(parts) > 2 and "." in parts[0] else "github.com"
    named = len(parts) > 1 and all(re.fullmatch(r"[\w.-]+", part) for part in parts)
    if not named or not re.fullmatch(r"[\w./+-]+", tag):
        raise StudyFolderError(
            f"--from: is '{address}'; expected the address of a repository and a tag, such as "
            "github.com/owner/volprompt@v1.0"
        )
    repository = "/".join(parts)
    provider = "gitlab" if "gitlab" in host else "github"
    version = "commit" if re.fullmatch(r"[0-9a-f]{40}", tag) else "tag"
    arguments = [f'"{repository}"', f'path="{ENTRY}"', f'{version}="{tag}"']
    arguments += [f'host="{host}"'] if host != f"{provider}.com" else []
    documents = f"https://{host}/{repository}/{'-/' * (provider == 'gitlab')}blob/{tag}"
    environment = (
        "The environment has to hold volprompt in the same version:\n\n"
        f"    python -m pip install git+https://{host}/{repository}@{tag}"
    )
    return Workflow(f"{provider}({', '.join(arguments)})", documents, environment)


def write_study_folder(folder: Path, workflow: Workflow, prefix: str = "") -> list[Path]:
    """Write the files of a new study below `folder`, which may exist; return their paths.

    prefix: stands before the names of the workflow's rules, with `_` between. Raises StudyFolderError, and writes
    nothing, for a prefix that is no name and if any of the files is there already.
    """
    if prefix and not prefix.isidentifier():
        raise StudyFolderError(f"--prefix: is '{prefix}'; expected letters, digits and _, beginning with a letter")
    files = {path.relative_to(TEMPLATES): path for path in sorted(TEMPLATES.rglob("*")) if path.is_file()}
    if workflow.demo is None:
        del files[REHEARSAL]
    if there := [folder / path for path in files if (folder / path).exists()]:
        listed = "".join(f"\n  {path}" for path in there)
        raise StudyFolderError(
            f"{folder}: nothing is written, since these files are there already; choose another folder, or move them "
            f"away:{listed}"
        )
    name = folder.resolve().name
    words = {
        "name": name,
        "title": json.dumps(name),
        "demo": workflow.demo and (lambda file: json.dumps(str(workflow.demo / file))),
        "rehearsal": json.dumps(f"{name}: a rehearsal with small models"),
        "snakefile": workflow.snakefile,
        "renamed": f" as {prefix}_*" if prefix else "",
        "documents": workflow.documents,
        "environment": workflow.environment,
    }
    templates = Environment(undefined=StrictUndefined, keep_trailing_newline=True)
    for path, template in files.items():
        text = template.read_text(encoding="utf-8")
        if path.parts[0] != "profiles":
            text = templates.from_string(text).render(words)
        elif prefix:
            text = re.sub(r"^  segment:", f"  {prefix}_segment:", text, flags=re.MULTILINE)
        write_text(folder / path, text)
    return [folder / path for path in files]


def next_steps(folder: Path) -> str:
    """What to do with a new study folder."""
    return f"Next: cd {shlex.quote(str(folder))}, and the steps of README.md there"
