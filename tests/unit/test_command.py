"""The command: help with examples, exit codes, faults as their message alone, and folders for new studies."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml
from tests.unit.command_line import volprompt

from volprompt import __version__
from volprompt.__main__ import command
from volprompt.clicks.authors import AUTHORS_SLICE
from volprompt.clicks.table import COLUMNS, ClickTable
from volprompt.command.study_folder import StudyFolderError, workflow_at
from volprompt.phantom.study import write_study
from volprompt.settings.reading import load_config, read_settings
from volprompt.study.sheets import read_volumes

REPOSITORY = Path(__file__).parents[2]
LIBRARY = REPOSITORY / "workflow" / "scripts" / "volprompt"
UV = REPOSITORY / ".venv" / "uv" / "bin" / "uv"
FILES = {
    "README.md",
    "Snakefile",
    "config/clicks.csv",
    "config/config.yaml",
    "config/rehearsal.yaml",
    "config/volumes.tsv",
    "profiles/local/config.yaml",
    "profiles/slurm/config.yaml",
    "profiles/workstation/config.yaml",
}
PUBLISHED = FILES - {"config/rehearsal.yaml"}  # whose models are those of a checkout's demo


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def verbs(group: click.Group, *path: str) -> Iterator[tuple[str, ...]]:
    """Every verb below a group, groups included."""
    context = click.Context(group)
    for name in group.list_commands(context):
        yield (*path, name)
        verb = group.get_command(context, name)
        if isinstance(verb, click.Group):
            yield from verbs(verb, *path, name)


def test_verbs() -> None:
    assert [path[0] for path in verbs(command) if len(path) == 1] == [
        *("init", "sheet", "check", "verify", "prune", "clicks", "phantom", "families", "schema"),
    ]


@pytest.mark.parametrize("path", list(verbs(command)), ids=" ".join)
def test_help_shows_an_example_that_parses(
    path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert volprompt(*path, "--help") == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"Usage: volprompt {' '.join(path)} ")
    line = printed.partition("Example:\n")[2].strip()
    words = shlex.split(line.partition(" >")[0])
    assert words[: len(path) + 1] == ["volprompt", *path]
    called: list[click.Context] = []
    monkeypatch.setattr(click.Command, "invoke", lambda verb, context: called.append(context))
    assert volprompt(*words[1:]) == 0
    last = called[-1].command
    assert not isinstance(last, click.Group) or last.invoke_without_command


def test_help_imports_no_large_package() -> None:
    program = (
        "import sys; from volprompt.__main__ import command; command.main(['--help'], standalone_mode=False);"
        "print(*{'torch', 'pandas', 'numpy', 'pydantic', 'yaml'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "Write a folder for a study" in done.stdout
    assert done.stderr.strip() == ""


def test_both_entries() -> None:
    for entry in ([Path(sys.executable).with_name("volprompt")], [sys.executable, "-m", "volprompt"]):
        done = subprocess.run([*entry, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout == f"volprompt, version {__version__}\n"


def test_the_version_is_one_everywhere() -> None:
    assert tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"] == __version__
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    released = f"## [{__version__}] - {citation['date-released']}"
    assert citation["version"] == __version__
    assert released in (REPOSITORY / "CHANGELOG.md").read_text()
    assert set(re.findall(r"v(\d+\.\d+\.\d+)", (REPOSITORY / "docs" / "modules.md").read_text())) == {__version__}


def test_an_unknown_verb_is_an_error_of_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert volprompt("chek") == 2
    assert "No such command 'chek'" in capsys.readouterr().err
    assert volprompt("sheet", "nifti", "folder") == 2
    assert "No such command 'nifti'" in capsys.readouterr().err


def test_expected_errors_are_their_message_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert volprompt("sheet", "folders", "images") == 1
    printed = capsys.readouterr()
    assert printed.err == "images: no such folder; expected folders\n"
    assert printed.out == ""
    Path("file").touch()
    assert volprompt("phantom", "file/below", "--count", 1, "--shape", 4, 8, 8) == 1
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (None, "mine.yaml: cannot be read (No such file or directory); expected a configuration: correct the path"),
        ("a: [", "mine.yaml: is not valid YAML (while parsing"),
        ("- a", "mine.yaml: holds a list; expected keys such as `volumes` and `structures`"),
        ("", "structures: is required"),
    ],
)
@pytest.mark.parametrize("verb", [["check"], ["clicks", "collect"]], ids=" ".join)
def test_a_faulty_configuration(
    verb: list[str], text: str | None, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        Path("mine.yaml").write_text(text)
    assert volprompt(*verb, "--configfile", "mine.yaml") == 1
    assert f"\n  - {fault}" in capsys.readouterr().err


@pytest.mark.parametrize("verb", [["check"], ["verify"], ["prune"], ["clicks", "collect"]], ids=" ".join)
@pytest.mark.parametrize(
    "options",
    [
        ["--configfile", "a.yaml", "b.yaml"],
        ["--configfile", "a.yaml", "--configfile", "b.yaml"],
        ["--configfile=a.yaml", "--configfile", "b.yaml"],
    ],
    ids=" ".join,
)
def test_several_configuration_files(
    verb: list[str], options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Behind one option, as Snakemake takes them, or behind one each."""
    Path("a.yaml").write_text("modles: 1\n")
    Path("b.yaml").write_text("results: []")
    assert volprompt(*verb, *options) == 1
    printed = capsys.readouterr().err
    assert "  - a.yaml line 1: modles: unknown key" in printed
    assert "  - b.yaml line 1: results: " in printed
    assert volprompt(*verb, *options, "--hepl", "c.yaml") == 2


def test_schema_is_the_shipped_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert volprompt("schema") == 0
    assert capsys.readouterr().out == (REPOSITORY / "config" / "schema" / "config.schema.json").read_text()


def test_the_papers_slice_is_the_default() -> None:
    importing = command.commands["clicks"].commands["import"]
    assert {option.name: option.default for option in importing.params}["index"] == AUTHORS_SLICE


def filled_study(folder: Path) -> None:
    """A new study folder whose sheet lists two phantoms."""
    assert volprompt("init", folder) == 0
    sheet = write_study(folder / "volumes", range(2), (10, 24, 24), (11.2, 5.84, 5.84))
    (folder / "config" / "volumes.tsv").write_text(sheet.read_text())


def test_check_of_a_new_study(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without volumes a fault of the tables; with volumes none; with a broken file a fault of its header."""
    filled_study(here / "knees")
    monkeypatch.chdir(here / "knees")
    capsys.readouterr()
    assert volprompt("check") == 0
    assert "The headers of 2 volumes have no fault" in capsys.readouterr().err
    image = Path(read_volumes("config/volumes.tsv", False, [])[0].image)
    image.write_bytes(image.read_bytes()[:500])
    assert volprompt("check") == 1
    printed = capsys.readouterr().err
    assert "1 fault in 1 of 2 volumes (table: results/check/faults.tsv)" in printed
    assert f"  - phantom_000: {image}: " in printed
    assert "Traceback" not in printed
    Path("config/volumes.tsv").write_text("volume\timage\n")
    assert volprompt("check") == 1
    assert "  - config/volumes.tsv: lists no volume" in capsys.readouterr().err


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_new_study_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert volprompt("init", "knees") == 0
    printed = capsys.readouterr().out.splitlines()
    assert set(printed[:-1]) == {f"knees/{name}" for name in FILES}
    assert printed[-1] == "Next: cd knees, and the steps of README.md there"
    assert files_of(Path("knees")) == FILES
    assert not any("{{" in Path("knees", name).read_text() for name in FILES if not name.startswith("profiles"))
    settings = read_settings(load_config("knees/config/config.yaml"))
    assert list(settings.schemes) == ["point", "box", "box_video"]
    assert [model.family for model in settings.models.values()] == ["sam", "sam2"]
    assert settings.report.title == "knees"
    rehearsal = read_settings(load_config("knees/config/config.yaml", "knees/config/rehearsal.yaml"))
    assert rehearsal.schemes == settings.schemes
    used = [rehearsal.models[name] for one in rehearsal.experiments.values() for name in one.models]
    assert [Path(model.checkpoint).is_relative_to(REPOSITORY / "demo") for model in used] == [True, True]
    assert rehearsal.results != settings.results
    assert f'"{REPOSITORY}/workflow/Snakefile"' in Path("knees/Snakefile").read_text()
    faults: list[str] = []
    assert read_volumes("knees/config/volumes.tsv", False, faults) == []
    command = "volprompt sheet LAYOUT FOLDERS --out knees/config/volumes.tsv"
    assert faults == [f"knees/config/volumes.tsv: lists no volume; add rows, or make it with `{command}`"]
    assert ClickTable("knees/config/clicks.csv").rows == []
    assert Path("knees/config/clicks.csv").read_text() == ",".join(COLUMNS) + "\n"
    for name in ("local", "slurm", "workstation"):
        profile = Path("profiles", name, "config.yaml")
        assert Path("knees", profile).read_text() == (REPOSITORY / profile).read_text()


def test_nothing_is_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    Path("knees/config").mkdir(parents=True)
    Path("knees/config/volumes.tsv").write_text("mine")
    Path("knees/README.md").write_text("mine")
    assert volprompt("init", "knees") == 1
    lines = capsys.readouterr().err.splitlines()
    assert "these files are there already" in lines[0]
    assert lines[1:] == ["  knees/README.md", "  knees/config/volumes.tsv"]
    assert files_of(Path("knees")) == {"README.md", "config/volumes.tsv"}
    assert Path("knees/config/volumes.tsv").read_text() == "mine"


def test_other_files_may_be_there() -> None:
    Path("images").mkdir()
    Path("images/a.nii.gz").touch()
    assert volprompt("init", ".") == 0
    assert files_of(Path()) == {*FILES, "images/a.nii.gz"}


def test_a_prefix_reaches_the_profiles(capsys: pytest.CaptureFixture[str]) -> None:
    assert volprompt("init", "knees", "--prefix", "sam") == 0
    assert "use rule * from volprompt as sam_*\n" in Path("knees/Snakefile").read_text()
    profile = Path("knees/profiles/workstation/config.yaml").read_text()
    assert "\nset-resources:\n  sam_segment:\n" in profile
    assert "\n  segment:" not in profile
    assert volprompt("init", "other", "--prefix", "a-b") == 1
    assert capsys.readouterr().err == ("--prefix: is 'a-b'; expected letters, digits and _, beginning with a letter\n")
    assert not Path("other").exists()


@pytest.mark.parametrize(
    ("address", "module", "documents"),
    [
        (
            "owner/name@v1.0",
            'github("owner/name", path="workflow/Snakefile", tag="v1.0")',
            "https://github.com/owner/name/blob/v1.0",
        ),
        (
            "https://github.com/owner/name.git@v1.0",
            'github("owner/name", path="workflow/Snakefile", tag="v1.0")',
            "https://github.com/owner/name/blob/v1.0",
        ),
        (
            "gitlab.com/group/sub/name@v1",
            'gitlab("group/sub/name", path="workflow/Snakefile", tag="v1")',
            "https://gitlab.com/group/sub/name/-/blob/v1",
        ),
        (
            f"git.clinic.org/owner/name@{'0a' * 20}",
            f'github("owner/name", path="workflow/Snakefile", commit="{"0a" * 20}", host="git.clinic.org")',
            f"https://git.clinic.org/owner/name/blob/{'0a' * 20}",
        ),
    ],
)
def test_addresses(address: str, module: str, documents: str) -> None:
    workflow = workflow_at(address)
    assert (workflow.snakefile, workflow.documents) == (module, documents)
    assert volprompt("init", "knees", "--from", address) == 0
    assert module in Path("knees/Snakefile").read_text()
    assert f"{documents}/config/README.md" in Path("knees/config/config.yaml").read_text()
    assert files_of(Path("knees")) == PUBLISHED
    assert str(REPOSITORY) not in "".join(Path("knees", name).read_text() for name in PUBLISHED)


@pytest.mark.parametrize(
    "address", ["name@v1", "owner/name", "owner/name@", "/home/me/name@v1", "owner/na me@v1", "owner/name@v 1", "@"]
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(StudyFolderError, match="expected the address of a repository and a tag"):
        workflow_at(address)


@pytest.mark.skipif(not UV.exists(), reason="the environment's uv builds the package")
def test_an_installed_package_has_all_it_needs(here: Path) -> None:
    """Templates, profiles and catalogue are in the package; the workflow is not, and has to be named."""
    build = [UV, "build", "--quiet", "--wheel", "--offline", "--out-dir", here, REPOSITORY]
    subprocess.run(build, check=True)
    (wheel,) = here.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(here / "site")

    def installed(*arguments: str) -> subprocess.CompletedProcess[str]:
        program = f"import sys; sys.path.insert(0, {str(here / 'site')!r}); from volprompt.__main__ import command; "
        command = [sys.executable, "-c", program + "command(prog_name='volprompt')", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    refused = installed("init", "knees")
    assert refused.returncode == 1
    assert "is an installed package; expected a checkout with the workflow" in refused.stderr
    assert installed("init", "knees", "--from", "owner/name@v1").returncode == 0
    assert files_of(here / "knees") == PUBLISHED
    inside = files_of(here / "site" / "volprompt")
    assert {name for name in files_of(LIBRARY) if not name.endswith(".pyc")} == inside
    (metadata,) = here.glob("site/*.dist-info")
    assert "volprompt = volprompt.__main__:command" in (metadata / "entry_points.txt").read_text()
    assert f"\nVersion: {__version__}\n" in (metadata / "METADATA").read_text()
    catalogue = here / "site" / "volprompt" / "checkpoints" / "catalogue.yaml"
    assert catalogue.read_text() == (REPOSITORY / "config" / "checkpoints.yaml").read_text()
