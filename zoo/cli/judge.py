"""Measure: models and samples that are not the zoo's."""

from __future__ import annotations

import argparse
import json

from zoo.cli.command import command, option
from zoo.cli.options import JSON
from zoo.errors import ZooError

# --------------------------------------------------------------------------------------------------------------- check


@command(
    "Measure",
    option("model", metavar="MODULE:CLASS", help="Class of the model; the module may lie in the working directory"),
    option("--arguments", metavar="JSON", help="Arguments of its constructor, such as '{\"event_shape\": [1, 3, 3]}'"),
    JSON,
)
def check(options: argparse.Namespace) -> None:
    """Check the mathematics of your own model.

    Tries the laws that its capabilities state: probabilities sum to one, samples follow the density, bounds are bounds,
    every parameter gets a gradient. Choose arguments that make it small, since densities are enumerated: 3 x 3 pixels,
    or points in the plane. The exit status is 1 if a law is broken. The module is imported, so its code runs.
    """
    from zoo.laws.report import Report, find_model, title_of, verdicts

    subject = find_model(options.model, options.arguments)
    report = Report(title_of(subject), list(verdicts(subject)))
    print(json.dumps(report.to_dict(), indent=2) if options.json else report)
    if report.failed:
        failed = "; ".join(f"{verdict.law} ({verdict.detail})" for verdict in report.failed)
        raise ZooError(f"{options.model}: {len(report.failed)} of {len(report.verdicts)} laws failed: {failed}")
