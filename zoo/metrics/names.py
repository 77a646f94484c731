"""Names of groups of numbers and of tables, for the command line, which refuses others before it imports torch."""

GROUPS = ("likelihood", "reconstruction", "accuracy", "quality", "outliers", "bayes", "ode")
"""Names of `zoo.metrics.evaluate.GROUPS`."""

TABLES = (
    "mnist-nll",
    "mnist-bpd",
    "cifar10-bpd",
    "mnist-fid",
    "fashion-mnist-fid",
    "cifar10-fid",
    "outliers",
    "taxonomy",
)
"""Names of `zoo.metrics.tables.TABLES`."""
