"""The errors of the zoo. Each message is one line, and says where, what was expected, what was found and what to do."""


class ZooError(Exception):
    """Base class of every error that the zoo raises on purpose."""


class DownloadError(ZooError):
    """A file could not be fetched, or differs from the file that was promised."""


class UploadError(ZooError):
    """A checkpoint could not be published."""


class CheckpointError(ZooError):
    """A checkpoint folder is missing, damaged or does not fit its model."""


class ConfigError(ZooError):
    """A configuration, recipe or option has an impossible value, or names something that does not exist."""


class DataError(ZooError):
    """A data set is missing, damaged, empty or of the wrong shape."""
