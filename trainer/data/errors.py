"""What can be wrong with a dataset folder."""


class DatasetError(Exception):
    """The data is not in the layout that was expected; the message says where."""


class NoSplitError(DatasetError):
    """The folder has no such split."""
