"""The one family of errors that the zoo raises; a message is one line: what, where, expected, found, what to do."""


class ZooError(Exception):
    """Base of every error that the zoo raises on purpose; `except ZooError` catches them all."""


class DownloadError(ZooError):
    """A file could not be fetched, or what came is not what was promised."""


class UploadError(ZooError):
    """A checkpoint could not be published."""


class CheckpointError(ZooError):
    """A checkpoint folder is missing, damaged or does not fit its model."""


class ConfigError(ZooError):
    """A configuration, recipe or command-line option names something that does not exist or has an impossible value."""


class DataError(ZooError):
    """A data set is missing, damaged, empty or of the wrong shape."""
