"""`python -m volprompt.clicks import` and `... collect`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from volprompt.clicks.authors import AUTHORS_SLICE, import_clicks
from volprompt.clicks.pages import collect
from volprompt.clicks.server import CollectServer, FrameStore
from volprompt.clicks.table import ClickTable
from volprompt.errors import VolpromptError


def main(arguments: Sequence[str] | None = None) -> int:
    """Clicks for the volumes of a study."""
    parser = argparse.ArgumentParser(prog="python -m volprompt.clicks", description=main.__doc__)
    commands = parser.add_subparsers(required=True)
    importing = commands.add_parser("import", help="add the paper's clicks on a sheet's volumes to a clicks table")
    importing.add_argument("table", help="the authors' table: subject, visit_date, series, structure, x, y")
    importing.add_argument("--volumes", required=True, help="the sample sheet")
    importing.add_argument("--out", required=True, help="the clicks table; rows that it has are kept")
    importing.add_argument("--slice", type=int, default=AUTHORS_SLICE, help="clicked slice, from 0 (%(default)s)")
    importing.set_defaults(run=_import)
    collecting = commands.add_parser("collect", help="collect clicks with a page in the browser")
    collecting.add_argument("--configfile", default="config/config.yaml", help="the study (%(default)s)")
    collecting.add_argument("--table", help="clicks table to write (the key `clicks`, or else beside the sample sheet)")
    collecting.add_argument("--structures", nargs="+", help="click on these (those that the schemes take clicks on)")
    collecting.add_argument("--slice", help="a number, middle, or any (the slices that the schemes prompt)")
    collecting.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (a free one)")
    collecting.set_defaults(run=_collect)
    given = parser.parse_args(arguments)
    try:
        given.run(given)
    except (VolpromptError, OSError, yaml.YAMLError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _import(given: argparse.Namespace) -> None:
    print(import_clicks(given.table, given.volumes, given.out, given.slice))


def _collect(given: argparse.Namespace) -> None:
    config = yaml.safe_load(Path(given.configfile).read_text(encoding="utf-8"))
    collection, settings = collect(config or {}, given.table, given.structures, given.slice)
    frames = FrameStore(settings)
    server = CollectServer(collection, frames, given.port)
    for reason in collection.unusable.values():
        print(f"left out: {reason}", file=sys.stderr)
    print(f"{len(collection.pages)} pages; clicks go to {collection.path}")
    print(f"Open {server.address}\nCtrl+C ends; what is saved stays.", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()
    finally:
        server.server_close()
        frames.close()
    collected = len(ClickTable(collection.path).rows)
    print(f"{collected} clicks in {collection.path}")
    if collection.note and collected:
        print(f"To use them, {collection.note}.")


if __name__ == "__main__":
    sys.exit(main())
