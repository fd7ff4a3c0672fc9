"""Errors that a user can act on: their message is all that needs to be shown."""


class VolpromptError(Exception):
    """Base of every expected error; its message names what was found, what was expected and what to do."""
