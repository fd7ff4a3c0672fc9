"""Sample sheets from the folder layouts that data sets come in."""
