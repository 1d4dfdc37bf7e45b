"""Errors a user can act on: one plain sentence that states the rule, the value received and the remedy."""


class DarecError(ValueError):
    """Base of every error that the command line and the app show without a traceback."""


class DataError(DarecError):
    """The interactions, the items or a source file break a rule of the normalised form."""


class ConfigError(DarecError):
    """A setting is unknown, out of range or does not fit the backbone or the data."""


class BackboneError(DarecError):
    """The backbone cannot be loaded, or lacks what the method needs."""


class RunError(DarecError):
    """A run folder is missing, incomplete, altered or of another kind than asked for."""
