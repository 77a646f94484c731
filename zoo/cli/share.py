"""Share: checkpoints from the Hugging Face Hub and to it, and models for other programs."""

from __future__ import annotations

import argparse

from zoo.cli.command import command, option
from zoo.cli.options import NAME, checkpoint_of
from zoo.errors import ConfigError
from zoo.files import expand

TARGETS = ("onnx", "torch-export", "diffusers")


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
    option("--to", choices=TARGETS, required=True, help=f"Program that the model is for: {', '.join(TARGETS)}"),
    option("--method", help="What an onnx or torch-export file computes, such as decode (default: by the model)"),
    option("--out", metavar="PATH", type=expand, required=True, help="New file; for diffusers, new folder"),
)
def export(options: argparse.Namespace) -> None:
    """Write a model in the form of another program.

    onnx: one method of the model as a file that onnxruntime runs. torch-export: the same for `torch.export.load`. Both
    run without the zoo. The method is decode, encode, log_prob, elbo, energy, denoise or logits; what is random is an
    input, and the batch has any size. The file is compared with the model before it is put in its place. diffusers: a
    folder that `diffusers.DDIMPipeline.from_pretrained` loads, from any diffusion model of images.
    """
    is_pipeline = options.to == "diffusers"
    if options.out.exists():
        raise ConfigError(f"--out: {options.out} exists already; choose a new {'folder' if is_pipeline else 'file'}")
    if is_pipeline and options.method is not None:
        raise ConfigError("--method: expected none with --to diffusers, whose pipelines draw; leave it out")
    model = checkpoint_of(options).load()
    if is_pipeline:
        from zoo.export.diffusers import export_diffusers

        print(export_diffusers(model, options.out))
        return

    from zoo.export.graph import export_graph

    print(export_graph(model, options.out, options.to, options.method))
