"""Snakemake's console for a study: `snakemake --logger volprompt`, and what the profiles take where it is installed."""

from snakemake_logger_plugin_volprompt.handler import LogHandler

__all__ = ["LogHandler"]
