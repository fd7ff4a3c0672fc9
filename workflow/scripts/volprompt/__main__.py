"""The command `volprompt`: what a study needs beside its runs, which are Snakemake's.

A verb imports what it needs when it is called, so that help comes at once.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from volprompt import __version__
from volprompt.command import CONFIGURATION
from volprompt.errors import VolpromptError


def example(*lines: str) -> str:
    """Lines for the end of a verb's help, which click leaves as they are."""
    return "\n".join(["\b", "Example:", *(f"  {line}" for line in lines)])


class Command(click.Group):
    """Verbs in the order of their use, whose expected errors end with their message alone and exit code 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the verbs."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb that was asked for."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except (VolpromptError, OSError) as error:
            click.echo(str(error), err=True)
            ctx.exit(1)


@click.group(cls=Command, epilog="Runs are Snakemake's: snakemake --profile profiles/local")
@click.version_option(__version__, prog_name="volprompt")
def command() -> None:
    """Zero-shot evaluation of promptable segmentation models on 3D volumes."""


@command.command(epilog=example("volprompt init knees"))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--from", "address", metavar="ADDRESS@TAG", help="A published workflow instead of this checkout.")
@click.option("--prefix", default="", help="Call the workflow's rules PREFIX_segment and so on.")
def init(folder: Path, address: str | None, prefix: str) -> None:
    """Write a folder for a study of your own.

    It holds a configuration with comments, an empty sample sheet and clicks table, profiles, and a Snakefile that uses
    the workflow of this checkout, or with --from that of github.com/OWNER/NAME@TAG. Nothing is overwritten.
    """
    from volprompt.command.study_folder import next_steps, workflow_at, workflow_here, write_study_folder

    workflow = workflow_at(address) if address else workflow_here()
    for path in write_study_folder(folder, workflow, prefix):
        click.echo(path)
    click.echo(next_steps(folder))


class StudyVerb(click.Command):
    """A verb that reads a study's configuration, and takes its files as Snakemake does: several behind one option."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        configfile = click.Option(
            ["--configfile", "configfiles"],
            default=[CONFIGURATION],
            show_default=CONFIGURATION,
            multiple=True,
            metavar="FILE...",
            help="The study's configuration; each further file changes what the ones before say.",
        )
        self.params.insert(0, configfile)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse `--configfile a b` like `--configfile a --configfile b`: no such verb takes anything but options."""
        spread: list[str] = []
        taking = False
        for word in args:
            if word.startswith("-"):
                taking = word == "--configfile"
            elif taking and spread[-1] != "--configfile":
                spread.append("--configfile")
            spread.append(word)
        return super().parse_args(ctx, spread)


class Layouts(click.Group):
    """A verb for each layout of folders, in the layout's own words."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the layouts."""
        from volprompt.study.layouts.layouts import LAYOUTS

        return list(LAYOUTS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb of one layout."""
        from volprompt.study.layouts.layouts import LAYOUTS
        from volprompt.study.layouts.sheet import USUAL, summary, write_sheet

        if cmd_name not in LAYOUTS:
            return None
        layout = LAYOUTS[cmd_name]

        def write(folders: tuple[Path, ...], out: Path, force: bool) -> None:
            found = layout.match(folders)
            write_sheet(found, out, force)
            click.echo(summary(found, out))

        out = click.Option(
            ["--out"],
            type=click.Path(path_type=Path),
            default=USUAL,
            show_default=True,
            help="Sample sheet, .tsv or .csv.",
        )
        return click.Command(
            cmd_name,
            callback=write,
            params=[
                click.Argument(["folders"], nargs=-1, required=True, type=click.Path(path_type=Path)),
                out,
                click.Option(["--force"], is_flag=True, help="Replace a sheet that lists volumes."),
            ],
            help=layout.match.__doc__,
            epilog=example(f"volprompt sheet {cmd_name} {layout.example} --out config/volumes.tsv"),
        )


@command.group(
    cls=Layouts, subcommand_metavar="LAYOUT FOLDERS...", epilog=example("volprompt sheet folders images references")
)
def sheet() -> None:
    """Write the sample sheet from the folders of a data set.

    Prints what was matched and what was not, with the reason. `volprompt sheet LAYOUT --help` says what a layout is.
    """


@command.command(cls=StudyVerb, epilog=example("volprompt check --configfile config/config.yaml config/rehearsal.yaml"))
def check(configfiles: tuple[str, ...]) -> None:
    """Check a study before it runs.

    Reads the configuration, its tables and the header of every file in the sample sheet, and lists all faults; those of
    files also go to <results>/check/faults.tsv. A run does the same for the volumes that it is about to convert.
    """
    from volprompt.checkpoints.catalogue import CATALOGUE, read_catalogue
    from volprompt.logs import logging_to_console
    from volprompt.settings.reading import load_config
    from volprompt.study.study import read_study

    study = read_study(load_config(*configfiles), read_catalogue(CATALOGUE))
    from volprompt.study.check import check_study  # and with it pandas, once the configuration has no fault

    with logging_to_console("check"):
        check_study(study)


@command.command(
    cls=StudyVerb, epilog=example("volprompt verify --configfile config/config.yaml config/rehearsal.yaml --sample 50")
)
@click.option("--sample", default=20, show_default=True, help="How many volumes of models are scored again.")
@click.option("--all", "all_", is_flag=True, help="Score every volume of every model again.")
@click.option("--seed", default=0, show_default=True, help="Of the sample.")
@click.pass_context
def verify(ctx: click.Context, configfiles: tuple[str, ...], sample: int, all_: bool, seed: int) -> None:
    """Verify the results of a study.

    Says what is missing if the study was not run to its end. Compares what each result was made from with the
    configuration, the bytes of results and sources with those that were written and read, scores volumes again from
    masks and references, and makes every table again from the scores. Nothing is changed. Ends with
    exit code 1 if something is missing or does not hold.
    """
    from volprompt.checkpoints.catalogue import CATALOGUE, read_catalogue
    from volprompt.command.verification import made_and_missing, missing_lines, summary_lines
    from volprompt.command.verification import verify as checks_of
    from volprompt.logs import logging_to_console
    from volprompt.settings.reading import load_config
    from volprompt.study.study import read_study

    study = read_study(load_config(*configfiles), read_catalogue(CATALOGUE))
    there, missing = made_and_missing(study)
    if missing:
        click.echo("\n".join(missing_lines(study, there, missing, configfiles)))
    if not there:
        ctx.exit(1)
    with logging_to_console("verify"):
        checks = list(checks_of(study, there, missing, None if all_ else sample, seed))
    click.echo("\n".join(summary_lines(study, checks)))
    ctx.exit(int(bool(missing) or any(check.faults for check in checks)))


@command.command(
    cls=StudyVerb, epilog=example("volprompt prune --configfile config/config.yaml config/rehearsal.yaml --delete")
)
@click.option("--delete", is_flag=True, help="Remove what is listed, after a question.")
@click.option("--yes", is_flag=True, help="Remove it without the question.")
@click.pass_context
def prune(ctx: click.Context, configfiles: tuple[str, ...], delete: bool, yes: bool) -> None:
    """List results that the configuration no longer has.

    Those of experiments, models, schemes and shards of volumes that were taken out of it, with their sizes; with
    --delete they are removed, unless a run is going on. What somebody else wrote or edited there stays, and nothing
    outside of the results is touched.
    """
    from volprompt.checkpoints.catalogue import CATALOGUE, read_catalogue
    from volprompt.command.pruning import find_leftovers, held, remove, require_results, summary_lines
    from volprompt.logs import logging_to_console
    from volprompt.settings.reading import load_config
    from volprompt.study.study import read_study
    from volprompt.words import plural

    study = read_study(load_config(*configfiles), read_catalogue(CATALOGUE))
    results = require_results(study)
    with logging_to_console("prune"), held(results) if delete else nullcontext():
        leftovers = find_leftovers(study)
        click.echo("\n".join(summary_lines(leftovers, study)))
        count = len(leftovers.all_files())
        if not delete and count:
            click.echo("\nNothing was removed; the same command with --delete removes these files.")
        if delete and count:
            if not yes and not _agrees(f"\nRemove {plural(count, 'file')} for good?"):
                click.echo("Nothing was removed.")
                ctx.exit(1)
            remove(leftovers)
            click.echo(f"\nRemoved {plural(count, 'file')}.")


def _agrees(question: str) -> bool:
    """Ask on the console; where nobody can answer, or Ctrl+C does, the answer is no."""
    try:
        return click.confirm(question)
    except click.Abort:
        click.echo()
        return False


@command.group(epilog=example("volprompt clicks collect --structures patella"))
def clicks() -> None:
    """Clicks as prompts: collect them on a page, or import the paper's."""


@clicks.command(
    cls=StudyVerb, epilog=example("volprompt clicks collect --configfile config/config.yaml --structures patella")
)
@click.option("--table", help="The clicks table (default: the configuration's, or one beside the sample sheet).")
@click.option("--structures", metavar="A,B,...", help="What to click on (default: what the schemes take clicks on).")
@click.option("--slice", "slice_", metavar="SLICE", help="A number, middle, or any (default: what the schemes prompt).")
@click.option("--port", default=0, help="Port on 127.0.0.1 (default: a free one).")
def collect(
    configfiles: tuple[str, ...], table: str | None, structures: str | None, slice_: str | None, port: int
) -> None:
    """Collect clicks on a page in the browser."""
    from volprompt.clicks.collection import collect
    from volprompt.clicks.server import serve
    from volprompt.settings.reading import load_config

    names = structures.split(",") if structures else None
    collection, settings = collect(load_config(*configfiles), table, names, slice_)
    serve(collection, settings, port)


@clicks.command("import", epilog=example("volprompt clicks import oai_zib_slice80_clicks.csv"))
@click.argument("table")
@click.option("--volumes", default="config/volumes.tsv", show_default=True, help="The sample sheet.")
@click.option("--out", default="config/clicks.csv", show_default=True, help="The clicks table; its rows are kept.")
@click.option("--slice", "index", type=int, default=80, show_default=True, help="The clicked slice, counted from 0.")
def import_(table: str, volumes: str, out: str, index: int) -> None:
    """Add the paper's clicks to a clicks table.

    TABLE has the columns subject, visit_date, series, structure, x, y. Only clicks on volumes of the sheet are added.
    """
    from volprompt.clicks.authors import import_clicks

    click.echo(import_clicks(table, volumes, out, index))


@command.command(epilog=example("volprompt phantom knees --count 2 --shape 40 96 96 --spacing 2.8 1.46 1.46"))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--count", default=4, show_default=True, help="Number of phantoms.")
@click.option("--first-seed", default=100, show_default=True, help="Seed of the first one; the others count on.")
@click.option("--shape", nargs=3, default=(160, 384, 384), show_default=True, help="Voxels along r, a, s.")
@click.option("--spacing", nargs=3, default=(0.7, 0.365, 0.365), show_default=True, help="Millimetres along r, a, s.")
@click.option("--contrast", type=click.Choice(["dess", "random"]), default="dess", show_default=True)
def phantom(folder: Path, count: int, first_seed: int, shape: Any, spacing: Any, contrast: Any) -> None:
    """Write synthetic knees to a folder.

    Each with its reference, and a sample sheet of them: FOLDER/volumes.tsv.
    """
    from volprompt.phantom.study import write_study

    write_study(folder, range(first_seed, first_seed + count), shape, spacing, contrast, verbose=True)


@command.group(invoke_without_command=True, epilog=example("volprompt families"))
@click.pass_context
def families(ctx: click.Context) -> None:
    """List the families of models that can be run, or check an adapter of your own."""
    if ctx.invoked_subcommand is None:
        from volprompt.command.families import family_lines

        click.echo("\n".join(family_lines()))


@families.command("check", epilog=example("volprompt families check my_package.adapter:MyModel --architecture small"))
@click.argument("family")
@click.option("--architecture", default="", help="What the adapter builds, as in the configuration (default: no text).")
@click.option("--checkpoint", type=click.Path(exists=True, dir_okay=False), help="Weights (default: as it is built).")
@click.pass_context
def check_family(ctx: click.Context, family: str, architecture: str, checkpoint: str | None) -> None:
    """Check what an adapter does against its contract (docs/families.md).

    FAMILY is a name, or package.module:Class. Prompts of all forms, volumes of different depth, empty masks, other
    orders, the same twice: on small random frames, on the CPU. Ends with exit code 1 if something does not hold.
    """
    from volprompt.models.devices import hide_gpus

    hide_gpus()
    from volprompt.models.conformance import conformance  # and with it torch

    faults: list[str] = []
    for result in conformance(family, architecture, checkpoint):
        click.echo(f"{'FAULT' if result.fault else 'ok   '} {result.what}")
        if result.fault:
            click.echo("      the same as above" if result.fault in faults else f"      {result.fault}")
            faults.append(result.fault)
    click.echo(f"{family}: {len(faults)} of the checks found a fault" if faults else f"{family}: all checks passed")
    ctx.exit(int(bool(faults)))


@command.command(epilog=example("volprompt schema > config.schema.json"))
def schema() -> None:
    """Print the configuration's JSON schema, for editors."""
    from volprompt.settings.config import json_schema

    click.echo(json_schema(), nl=False)


if __name__ == "__main__":
    command(prog_name="volprompt")
