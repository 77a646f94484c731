"""Share: checkpoints from the Hugging Face Hub and to it, and models for other programs."""

from __future__ import annotations

import argparse

from zoo.cli.command import command, option
from zoo.cli.options import NAME, checkpoint_of
from zoo.errors import ConfigError
from zoo.files import expand


@command("Share", NAME)
def pull(options: argparse.Namespace) -> None:
    """Download a checkpoint from the Hugging Face Hub and verify it.

    Without a tag or commit, the newest version is downloaded.
    """
    checkpoint = checkpoint_of(options)
    checkpoint.load()
    print(checkpoint.folder)


@command(
    "Share",
    option("name", metavar="NAME", nargs="?", help="Checkpoint: a folder, or a name of `zoo list`"),
    option("repo", metavar="USER/REPO", nargs="?", help="Repository, which is created if there is none"),
    option("--private", action="store_true", help="Make the repository visible to its owner alone"),
    option("--pull-request", action="store_true", help="Propose the checkpoint to an existing repository"),
    option("--all", action="store_true", help="Push every pretrained checkpoint, and pin each in the registry"),
    option("--namespace", metavar="ORG", help="Owner of the repositories ORG/NAME of --all"),
)
def push(options: argparse.Namespace) -> None:
    """Publish a checkpoint on the Hugging Face Hub.

    The checkpoint is verified first, and published in one commit, with a tag. Log in with `hf auth login`, or set
    HF_TOKEN. If a push is interrupted, the same command completes it.
    """
    from zoo.store.zoo import Zoo

    if options.all:
        if options.namespace is None or options.name or options.pull_request:
            raise ConfigError("--all: expected `zoo push --all --namespace ORG`, with --private or without")
        for pushed in Zoo.push_all(options.namespace, private=options.private):
            print(pushed, flush=True)
        return
    if options.repo is None or options.namespace:
        raise ConfigError("push: expected `zoo push FOLDER USER/NAME`, or `zoo push --all --namespace ORG`")
    print(Zoo.push(options.name, options.repo, private=options.private, pull_request=options.pull_request))


@command(
    "Share",
    NAME,
    option("--to", choices=("diffusers",), required=True, help="Program that the model is for: diffusers"),
    option("--out", metavar="FOLDER", type=expand, required=True, help="New folder"),
)
def export(options: argparse.Namespace) -> None:
    """Write a model in the form of another program.

    diffusers: a folder that `diffusers.DDIMPipeline.from_pretrained` loads, from any diffusion model of images.
    """
    if options.out.exists():
        raise ConfigError(f"--out: {options.out} exists already; choose a new folder")
    model = checkpoint_of(options).load()

    from zoo.export.diffusers import export_diffusers

    print(export_diffusers(model, options.out))
