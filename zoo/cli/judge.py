"""Measure: models and samples that are not the zoo's."""

from __future__ import annotations

import argparse
import json

from zoo.cli.command import command, either, option
from zoo.cli.options import DEVICE, JSON
from zoo.errors import ConfigError, ZooError
from zoo.files import check_exists, expand

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


# ------------------------------------------------------------------------------------------------------------- compare


@command(
    "Measure",
    option("--samples", metavar="PATH", type=expand, help="Images that your model drew: a folder, or an .npz or .npy"),
    option(
        "--log-prob", metavar="FILE", type=expand, help="CSV file of the log-likelihood of each test image, in nats"
    ),
    option("--data", metavar="DATA", required=True, help="Data set, such as mnist or binarized-mnist"),
    option(
        "--kind",
        choices=("exact", "bound", "estimate"),
        default="estimate",
        help="What the log-likelihoods are: exact, lower bounds, or estimates (default %(default)s)",
    ),
    option("--name", default="yours", help="Name of your model in the tables (default %(default)s)"),
    either(JSON, option("--card", action="store_true", help="Print the model-index of a model card")),
    DEVICE,
)
def compare(options: argparse.Namespace) -> None:
    """Put your samples and likelihoods into the tables of the zoo.

    They are measured like those of the checkpoints, beside the floor and a memoriser of the training images. The CSV
    file has a column log_prob, or one number in each line, in the order of the test images or with a column index. The
    command also checks what the files tell of the protocol: counts, values, copies of training images, and a mean that
    beats the entropy of the data. The exit status is 1 if a rule is broken.
    """
    if options.samples is None and options.log_prob is None:
        raise ConfigError("compare: expected --samples, --log-prob or both, found neither")
    if options.log_prob is not None:
        check_exists(options.log_prob, "a CSV file")
    if options.samples is not None:
        check_exists(options.samples, "a folder of images, or a .npy or .npz file")

    from zoo.metrics.compare import compare

    standing = compare(
        options.data,
        samples=options.samples,
        log_prob=options.log_prob,
        kind=options.kind,
        name=options.name,
        device=options.device,
    )
    if options.card:
        print(standing.to_card())
    else:
        print(json.dumps(standing.to_dict(), indent=2) if options.json else standing)
    if standing.broken:
        broken = "; ".join(f"{check.rule}: {check.detail}" for check in standing.broken)
        count = len(standing.broken)
        rules = "1 rule of the protocol is" if count == 1 else f"{count} rules of the protocol are"
        raise ZooError(f"{options.name}: {rules} broken: {broken}")
