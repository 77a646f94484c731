"""Look: what checkpoints there are, and what is known of them."""

from __future__ import annotations

import argparse
import json
import socket
from typing import TYPE_CHECKING

from zoo.cli.command import command, default, option
from zoo.cli.options import DEVICE, JSON, NAME, checkpoint_of, whole
from zoo.errors import ConfigError

if TYPE_CHECKING:
    from zoo.measurement import Measurement


@command(
    "Look",
    option("pattern", metavar="PATTERN", nargs="?", default="*", help="Names to show, such as 'vae-*'"),
    option("--capability", metavar="TYPE", help="Show models of this type of zoo.capabilities, such as Decoder"),
    option("--data", metavar="DATA", help="Show models of this data set, such as binarized-mnist"),
    option("--family", metavar="FAMILY", help="Show models of this family, such as autoregressive"),
    JSON,
)
def list_(options: argparse.Namespace) -> None:
    """List the pretrained checkpoints."""
    from zoo.store.zoo import Zoo

    names = Zoo.list(options.pattern, capability=options.capability, data=options.data, family=options.family)
    if options.json:
        print(json.dumps([Zoo.info(name).to_dict() for name in names], indent=2))
        return
    if not names:
        raise ConfigError(
            f"list: no checkpoint matches {options.pattern!r} and the options; a pattern is such as 'vae-*', and "
            "`zoo list` shows all"
        )
    width = max(map(len, names))
    for name in names:
        info = Zoo.info(name)
        print(
            f"{name:{width}} {info.family:14} {info.data_name:16} {info.size / 1e6:5.1f} MB  {_headline(info.numbers)}"
        )


def _headline(numbers: list[Measurement]) -> str:
    """The test likelihood, or else its bound or an accuracy, and the FID, in a few words."""
    tested = [m for m in numbers if m.split == "test"]
    named = [[m for m in tested if m.name == name][-1:] for name in ("nll", "neg_elbo", "accuracy", "class_accuracy")]
    best = next(filter(None, named), []) + [m for m in tested if m.name == "fid"][:1]
    return ", ".join(f"{m.name} {m.value:.4g}{' ' + m.unit if m.unit else ''} ({m.kind})" for m in best)


@command("Look", NAME, JSON)
def info(options: argparse.Namespace) -> None:
    """Show a checkpoint: its numbers, recipe, size and licence."""
    checkpoint = checkpoint_of(options)
    print(json.dumps(checkpoint.to_dict(), indent=2) if options.json else checkpoint)


def _check_address(options: argparse.Namespace) -> None:
    try:
        socket.create_server((options.host, options.port)).close()
    except OSError as error:
        why = str(error.strerror or error).partition(" (")[0]
        raise ConfigError(
            f"--port: cannot serve on {options.host}:{options.port}: {why}; choose another --port or --host"
        ) from error


@command(
    "Look",
    option("--host", default="127.0.0.1", help="Address to serve on; 0.0.0.0 for other machines (default %(default)s)"),
    option("--port", type=whole(1, 65535), default=7860, help="Port to serve on (default %(default)s)"),
    default(check=_check_address),
    DEVICE,
)
def demo(options: argparse.Namespace) -> None:
    """Serve a page on which to try the models.

    Open the printed address in a browser. The page shows all checkpoints and their numbers; it draws, walks through
    codes, completes images, shows how they are drawn pixel by pixel or from noise, and ranks your own. It needs no
    network.
    """
    from zoo.demo import app

    page = app(options.device)
    host, port = options.host, options.port
    _, address, _ = page.launch(server_name=host, server_port=port, share=False, quiet=True, prevent_thread_lock=True)
    print(address, flush=True)
    page.block_thread()
