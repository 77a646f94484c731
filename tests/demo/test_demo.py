"""The functions of the page of `zoo demo`, called as a browser calls them: over a local server."""

from __future__ import annotations

import base64
import io
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from hub_server import free_port
from PIL import Image

gr = pytest.importorskip("gradio", reason="needs the extra [demo]")

from gradio_client import Client, handle_file  # noqa: E402
from gradio_client.exceptions import AppError  # noqa: E402

from zoo import Zoo, denoising, latents, pixelwise  # noqa: E402
from zoo.capabilities import Autoregressive, Completable, Decoder, Denoiser, GenerativeModel  # noqa: E402
from zoo.cli import main  # noqa: E402
from zoo.demo import app, complete, denoise, draw, gallery, rank, walk  # noqa: E402
from zoo.demo.models import Models  # noqa: E402
from zoo.demo.parts import IN_TURN, answer, sheet, source  # noqa: E402
from zoo.errors import ConfigError  # noqa: E402
from zoo.measurement import headlines  # noqa: E402
from zoo.metrics.score import score  # noqa: E402
from zoo.samplers import DDIM, Gibbs, Tempered  # noqa: E402
from zoo.store.checkpoint import Checkpoint  # noqa: E402


@pytest.fixture(scope="module")
def page() -> gr.Blocks:
    return app()


@pytest.fixture(scope="module")
def client(page: gr.Blocks) -> Iterator[Client]:
    _, address, _ = page.launch(quiet=True, prevent_thread_lock=True)
    yield Client(address, verbose=False)
    page.close()


@pytest.fixture(scope="module")
def models() -> Models:
    return Models()


def same(found: Any, expected: Image.Image) -> bool:
    """Whether a picture, or the file of one, shows what is expected, to the pixel."""
    picture = found if isinstance(found, Image.Image) else Image.open(found)
    return np.array_equal(np.asarray(picture.convert("RGB")), np.asarray(expected.convert("RGB")))


def frames_of(film: str) -> list[Image.Image]:
    """The pictures of a film."""
    picture = Image.open(io.BytesIO(base64.b64decode(film.partition("base64,")[2].partition('"')[0])))
    frames = []
    for number in range(getattr(picture, "n_frames", 1)):
        picture.seek(number)
        frames.append(picture.convert("L"))
    return frames


# ------------------------------------------------------------------------------------------------------ what is offered


def test_tabs_offer_the_models_that_can(page: gr.Blocks, models: Models) -> None:
    choices = [block for block in page.blocks.values() if isinstance(block, gr.Dropdown) and block.label == "Model"]
    offered = [{name for name, _ in block.choices} for block in choices]
    needed = [GenerativeModel, Decoder, Completable, Autoregressive, Denoiser]
    assert len(offered) == len(needed) + 1 and all(block.value in dict(block.choices) for block in choices)
    for names, capability in zip(offered, needed, strict=False):
        can = {name for name in Zoo.list() if issubclass(models[name].model_class(), capability)}
        points = {name for name in can if len(models[name].arguments["event_shape"]) != 3}
        assert names == (can if capability is GenerativeModel else can - points)
    assert "vae-mnist" in offered[-1] and not {"gan-mnist", "rbm-binarized-mnist", "lenet-mnist"} & offered[-1]


def test_the_gallery_reads_no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Checkpoint, "load", lambda *_, **__: pytest.fail("weights were read"))
    models = Models()
    pictures, rows = gallery.find(models, gallery.ALL, gallery.ALL)
    assert [row[0] for row in rows] == Zoo.list() and {name for _, name in pictures} < set(Zoo.list())
    assert all(Path(path).is_file() for path, _ in pictures) and len(pictures) > 50
    _, rows = gallery.find(models, "vae", "binarized-mnist")
    assert rows and all(Zoo.info(row[0]).family == "vae" and row[2] == "binarized-mnist" for row in rows)
    assert rows[0][-1] == headlines(Zoo.info(rows[0][0]).numbers) != ""
    text = gallery.describe(models, "vae-mnist")
    assert all(str(number) in text for number in Zoo.info("vae-mnist").numbers) and 'Zoo.load("vae-mnist")' in text


def test_the_server_sends_samples_but_no_weights(client: Client) -> None:
    pictures, table = client.predict("vae", "mnist", api_name="/find")
    assert {item["caption"] for item in pictures} == {row[0] for row in table["data"]} >= {"vae-mnist"}
    assert all(Image.open(item["image"]).width > 100 for item in pictures)
    folder = Zoo.info("vae-mnist").folder
    fetch = httpx.get
    assert fetch(f"{client.src}gradio_api/file={folder / 'samples.png'}").status_code == 200
    assert fetch(f"{client.src}gradio_api/file={folder / 'model.safetensors'}").status_code == 403


# -------------------------------------------------------------------------------------------------------- what is drawn


def test_draw_shows_samples(client: Client, models: Models) -> None:
    model = models.load("conditional-edm-mnist")
    settings = {"steps": 3, "temperature": 1, "guidance": 2, "eta": 0.5}
    for label, labels in ((IN_TURN, [0, 1, 2]), (7, [7, 7, 7])):
        shown = client.predict("conditional-edm-mnist", 3, 5, label, draw.OWN, *settings.values(), api_name="/draw")
        assert same(shown, sheet(model.sample(3, generator=source(5), labels=labels)))
    shown = draw.draw(models, "conditional-edm-mnist", 2, 0, 1, "ddim", *settings.values())
    sampler = DDIM(steps=3, guidance=2.0, eta=0.5)
    assert same(shown, sheet(model.sample(2, generator=source(0), labels=1, sampler=sampler)))


def test_draw_shows_expected_images_of_codes_and_plots_of_points(models: Models) -> None:
    model = models.load("vae-mnist")
    codes = latents.prior_codes(model, 4, source(1))
    assert same(draw.draw(models, "vae-mnist", 4, 1, None), sheet(latents.decode(model, codes)))
    assert draw.draw(models, "spline-toy2d", 4, 0, None).width > 600


def test_samplers_have_the_sliders_that_they_take(models: Models) -> None:
    def shown(name: str, sampler: str) -> dict[str, Any]:
        sliders = dict(
            zip(("steps", "temperature", "guidance", "eta"), draw._sliders(models, name, sampler), strict=True)
        )
        return {key: slider.value for key, slider in sliders.items() if slider.visible}

    assert shown("ddpm-mnist", draw.OWN) == {}
    assert shown("ddpm-mnist", "ddim") == {"steps": DDIM().steps, "eta": 0.0}
    assert shown("conditional-edm-mnist", "heun").keys() == {"steps", "guidance"}
    assert shown("glow-mnist", "tempered") == {"temperature": Tempered().temperature}
    assert shown("rbm-binarized-mnist", "gibbs") == {"steps": Gibbs().steps, "temperature": 1.0}
    assert not draw._samplers(models, "gan-mnist").visible


def test_walk_moves_codes(client: Client, models: Models) -> None:
    model = models.load("vae-mnist")
    (a,), (b,) = (latents.prior_codes(model, 1, source(seed)) for seed in (3, 4))
    moved = a.clone()
    moved[2:4] += torch.tensor([1.5, -1])
    moves = [1.5, -1, *[0] * (walk.SLIDERS - 2)]
    shown = client.predict("vae-mnist", None, 3, None, 2, *moves, api_name="/decode")
    assert same(shown, sheet(latents.decode(model, moved[None])))
    way = client.predict("vae-mnist", None, 3, None, 2, *moves, 4, None, api_name="/walk")
    assert same(way, sheet(latents.interpolate(model, moved, b, walk.STEPS), columns=walk.STEPS))


def test_walk_begins_with_own_images(models: Models) -> None:
    model = models.load("vae-mnist")
    x = model.sample(1, generator=source(0)).mul(255).round() / 255
    own = Image.fromarray(x[0, 0].mul(255).to(torch.uint8).numpy())
    still = walk.decode(models, "vae-mnist", None, 0, own, 0)
    assert same(still, sheet(latents.reconstruct(model, x)))
    assert same(walk.decode(models, "gan-mnist", None, 0, own, 0), draw.draw(models, "gan-mnist", 1, 0, None))
    with pytest.raises(ConfigError, match="expected one from 0 to 15, found 16"):
        walk.decode(models, "vae-mnist", None, 0, None, 16, 1.0)


@pytest.mark.parametrize("name", ["eonade-binarized-mnist", "gaussian-cifar10"])
def test_what_is_not_painted_over_stays(name: str, models: Models) -> None:
    model = models.load(name)
    image = complete.example(models, name, 2)
    side = model.event_shape[1]
    layer = Image.new("RGBA", image.size)
    layer.paste((228, 87, 46, 255), (0, image.height // 2 - 3, *image.size))  # a part of a row is not enough
    canvas = {"background": image.convert("RGBA"), "layers": [layer]}
    shown = np.asarray(complete.complete(models, name, canvas, 2, 0).convert("RGB"))
    scale = shown.shape[0] // (side + 2)
    tiles = [shown[scale:-scale:scale, scale + i * scale * (side + 1) :: scale][:, :side] for i in range(3)]
    x = (
        (model.sample(1, generator=source(2))[0].clamp(0, 1) * 255)
        .round()
        .byte()
        .expand(3, -1, -1)
        .movedim(0, 2)
        .numpy()
    )
    half = side // 2
    assert all(np.array_equal(tile[:half], x[:half]) for tile in tiles)
    assert (tiles[0][half:] == 128).all() and not np.array_equal(tiles[1][half:], tiles[2][half:])


def test_complete_over_the_server(client: Client, tmp_path: Path) -> None:
    shown = client.predict("mixture-binarized-mnist", 0, api_name="/example")
    layer = Image.new("RGBA", Image.open(shown["background"]).size)
    canvas = {"background": handle_file(shown["background"]), "composite": None, "layers": []}
    with pytest.raises(AppError, match="expected a part that is painted over, found none; use the brush"):
        client.predict("mixture-binarized-mnist", canvas, 1, 0, api_name="/complete")
    layer.paste((228, 87, 46, 255), (100, 100, 300, 300))
    layer.save(tmp_path / "layer.png")
    canvas["layers"] = [handle_file(tmp_path / "layer.png")]
    done = client.predict("mixture-binarized-mnist", canvas, 1, 0, api_name="/complete")
    assert Image.open(done).width > Image.open(done).height


def test_pixels_come_one_after_another(client: Client, models: Models) -> None:
    model = models.load("made-binarized-mnist")
    film, still = client.predict("made-binarized-mnist", 2, 4, api_name="/pixels")
    x, order = pixelwise.draw(model, 2, generator=source(4))
    last = sheet(torch.cat([x, pixelwise.probabilities(model, x, order)]), columns=2)
    frames = frames_of(film)
    assert same(still, last) and len(frames) > 20
    num_grey = [(np.asarray(frame) == 128).sum() for frame in frames]
    assert num_grey == sorted(num_grey, reverse=True) and num_grey[0] > 0 == num_grey[-1]


def test_noise_is_removed_step_by_step(client: Client, models: Models) -> None:
    model = models.load("consistency-mnist")
    assert isinstance(model, Denoiser)
    film, slider, noisy, expected, caption = client.predict("consistency-mnist", 2, 1, IN_TURN, api_name="/denoise")
    _, moments = denoising.watch(model, 2, generator=source(1), labels=[0, 1])
    middle = slider["value"]
    assert 1 <= middle < slider["maximum"] == len(moments) and len(frames_of(film)) == len(moments) + 1
    shown = moments[middle - 1]
    assert same(expected, sheet(shown.denoised, columns=2)) and f"{shown.sigma:.3g}" in caption
    assert same(noisy, sheet(denoising.noisy_images(model, shown), columns=2))
    first, *_ = client.predict(1, api_name="/step")
    assert same(first, sheet(denoising.noisy_images(model, moments[0]), columns=2))
    with pytest.raises(ConfigError, match="remove noise first"):
        denoise.step([], 1)


def test_rank_is_that_of_score(client: Client, models: Models, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    files = []
    for number, rows in enumerate((40, 2, 20)):
        image = Image.new("L", (40, 40))
        image.paste(255, (0, 0, 40, rows))
        image.save(tmp_path / "images" / f"{rows}.png")
        files.append(handle_file(tmp_path / "images" / f"{rows}.png"))
        assert number < rank.MOST
    found = score(models["made-binarized-mnist"], tmp_path / "images", resize=True, binarize=True, progress=False)
    pictures, table = client.predict("made-binarized-mnist", files, 0, api_name="/rank")
    assert [row[0] for row in table["data"]] == found.files == ["40.png", "20.png", "2.png"]
    assert [float(row[1]) for row in table["data"]] == pytest.approx(found.nats.tolist(), abs=0.006)
    assert pictures[0]["caption"] == f"40.png: {found.nats[0]:.1f} nats"
    assert same(pictures[0]["image"], sheet(found.images[:1]))
    with pytest.raises(AppError, match=r"rank: expected 1 to 64 images, found 0; upload some"):
        client.predict("made-binarized-mnist", None, 0, api_name="/rank")


# ------------------------------------------------------------------------------------------------------ what goes wrong


def test_errors_of_the_zoo_are_messages() -> None:
    def fail(why: str) -> None:
        raise ConfigError(why)

    with pytest.raises(gr.Error) as caught:
        answer(fail, "nothing here")()
    assert caught.value.message == "nothing here" and not caught.value.print_exception


def test_the_api_takes_classes_and_samplers_of_all_models(client: Client, models: Models) -> None:
    shown = client.predict("conditional-vae-mnist", 3, 7, None, 0, *[0] * walk.SLIDERS, api_name="/decode")
    model = models.load("conditional-vae-mnist")
    code = latents.prior_codes(model, 1, source(7))
    assert same(shown, sheet(latents.decode(model, code, labels=torch.tensor([3]))))
    shown = client.predict("rbm-binarized-mnist.small", 2, 7, None, "gibbs", 3, api_name="/draw")
    assert same(shown, sheet(models.load("rbm-binarized-mnist.small").sample(2, generator=source(7), sampler=Gibbs(3))))


NO_MOVES = [0] * walk.SLIDERS


@pytest.mark.parametrize(
    ("api_name", "values", "why"),
    [
        ("/draw", ["gan-mnist", 4, None, None], "^seed: expected a whole number, found none"),
        ("/draw", ["spline-toy2d", 4, None, None], "^seed: expected a whole number, found none"),
        ("/draw", ["conditional-gan-mnist", 4, 0, 10], "^labels: expected classes from 0 to 9, found 10"),
        ("/draw", ["conditional-gan-mnist", 4, 0, "cat"], "^class: expected a number from 0 to 9, found 'cat'"),
        ("/draw", ["gan-mnist", 4, 0, None, "ddim"], "^sampler: gan-mnist has none, found 'ddim'"),
        ("/draw", ["ddpm-mnist", 4, 0, None, "gibbs"], "^sampler: ddpm-mnist has one of .*ddim.*, found 'gibbs'"),
        ("/decode", ["vae-mnist", None, 0, None, None, *NO_MOVES], "^first dimension: expected a whole number"),
        ("/rank", ["vae-mnist", ["a.png"], 0], "^rank: a.png cannot be decoded as an image; leave it out$"),
    ],
)
def test_bad_input_is_one_sentence(client: Client, api_name: str, values: list[Any], why: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    sent = [[handle_file(str(tmp_path / each)) for each in v] if isinstance(v, list) else v for v in values]
    with pytest.raises(AppError, match=why):
        client.predict(*sent, api_name=api_name)


def test_a_missing_extra_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in [name for name in sys.modules if name.startswith("zoo.demo")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["demo", "--port", str(free_port())]) == 1
    assert capsys.readouterr().err == "zoo: gradio is not installed; run `pip install 'generative-zoo[demo]'`\n"


def test_the_command_serves_the_page(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    served: list[gr.Blocks] = []
    monkeypatch.setattr(gr.Blocks, "block_thread", lambda page: served.append(page))
    port = free_port()
    assert main(["demo", "--port", str(port)]) == 0
    assert capsys.readouterr().out == f"http://127.0.0.1:{port}/\n"
    assert "The zoo of generative models" in httpx.get(f"http://127.0.0.1:{port}").text
    assert main(["demo", "--port", str(port)]) == 1
    said = f"zoo: --port: cannot serve on 127.0.0.1:{port}: Address already in use; choose another --port or --host\n"
    assert capsys.readouterr().err == said
    served[0].close()


def test_the_space_is_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[gr.Blocks] = []
    monkeypatch.setattr(gr.Blocks, "launch", lambda page: launched.append(page))
    space = Path(__file__).parents[2] / "docs" / "space"
    exec(compile((space / "app.py").read_text(), "app.py", "exec"), {})
    assert len(launched) == 1 and launched[0].title == "The zoo of generative models"
    assert (space / "requirements.txt").read_text().startswith("generative-zoo[demo] @ https://")


def test_the_page_asks_nothing_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever connects to an address other than this machine fails, and nothing does."""
    connect, asked = socket.socket.connect, []

    def connect_here(self: socket.socket, address: Any) -> None:
        if not (isinstance(address, tuple) and address[0] in ("127.0.0.1", "localhost", "::1")):
            asked.append(address)
            raise OSError("no network")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_here)
    monkeypatch.setattr(socket, "getaddrinfo", _only_local(socket.getaddrinfo, asked))
    page = app()
    _, address, _ = page.launch(quiet=True, prevent_thread_lock=True)
    config = httpx.get(f"{address}config").json()
    page.close()
    assert asked == [] and config["analytics_enabled"] is False


def _only_local(getaddrinfo: Any, asked: list[Any]) -> Any:
    def look_up(host: Any, *arguments: Any, **settings: Any) -> Any:
        if host not in (None, "127.0.0.1", "localhost", "::1", "0.0.0.0"):
            asked.append(host)
            raise OSError("no network")
        return getaddrinfo(host, *arguments, **settings)

    return look_up
