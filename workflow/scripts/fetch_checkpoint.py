"""One checkpoint of the catalogue."""

from pathlib import Path

from volprompt.logs import logging_to

with logging_to(snakemake.log[0], f"fetch_checkpoint {snakemake.wildcards.file}"):
    from volprompt.checkpoints.catalogue import CatalogueEntry
    from volprompt.checkpoints.download import fetch

    fetch(CatalogueEntry(**snakemake.params.entry), Path(snakemake.output[0]))
