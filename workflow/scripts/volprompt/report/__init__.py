"""The report: one page, its figures for print, and the viewer of the volumes in it."""
