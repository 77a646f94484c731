"""Users' own data: folders of images, and arrays."""

import errno
import os
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_data import SPLITS, complaint

from zoo.data import (
    CIFAR10,
    MNIST,
    Arrays,
    Bars,
    BinarizedMNIST,
    DataModule,
    Digits,
    FashionMNIST,
    ImageFolder,
    Rivers,
    own,
)
from zoo.data.image_files import SUFFIXES, decode, read_image
from zoo.errors import ConfigError, DataError

# folders of images


def paint(path: Path, size: tuple[int, int] = (6, 4), mode: str = "RGB", value: object = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode in ("L", "I;16") else (value,) * len(mode)).save(path)
    return path


def test_a_folder_of_images_with_labels(tmp_path: Path) -> None:
    for number in range(30):
        paint(tmp_path / ("cats" if number % 3 else "birds/small") / f"{number:02}.png", value=number)
    (tmp_path / "cats/notes.txt").write_text("no image")
    paint(tmp_path / ".thumbnails/x.png", size=(1, 1))
    data = ImageFolder(str(tmp_path))
    with pytest.warns(UserWarning, match=r"ignored 1 file \(\.txt\)$"):
        assert (data.event_shape, data.num_classes, data.levels) == ((3, 4, 6), 2, 256)
    assert (data.classes, data.name) == (["birds", "cats"], tmp_path.name)
    assert [len(data.split(which)) for which in SPLITS] == [25, 3, 2]
    values = []
    for which in SPLITS:
        split = data.split(which)
        value = split.x[:, 0, 0, 0].long()
        assert torch.equal(split.x, value.to(torch.uint8).view(-1, 1, 1, 1).expand_as(split.x))
        assert torch.equal(split.labels, (value % 3 != 0).long())
        values += value.tolist()
    assert sorted(values) == list(range(30))
    (tmp_path / "cats/notes.txt").unlink()
    assert torch.equal(ImageFolder(str(tmp_path)).split("test").x, data.split("test").x)


def found_in(folder: Path, **options: Any) -> tuple[list[str], list[str]]:
    """The images of a folder, and what was said about it."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        data = ImageFolder(str(folder), **options)
        data.everything()
    return [path.as_posix() for path in data.used], [str(warning.message) for warning in said]


def test_every_kind_of_image_file_is_read(tmp_path: Path) -> None:
    formats = Image.registered_extensions()
    assert {".jfif", ".avif"} <= SUFFIXES
    names = [f"{suffix[1:]}{suffix.upper()}" for suffix in sorted(SUFFIXES & formats.keys())]  # AVIF is an option
    for name in names:
        with (tmp_path / name).open("wb") as file:
            Image.new("1" if name.endswith(".PBM") else "L", (6, 4)).save(file, formats[Path(name).suffix.lower()])
    assert len(names) >= 14 and found_in(tmp_path, channels=1) == (sorted(names), [])


def test_links_are_followed_once(tmp_path: Path) -> None:
    paint(tmp_path / "data/cats/1.png"), paint(tmp_path / "data/cat.gif/2.png"), paint(tmp_path / "elsewhere/3.png")
    (tmp_path / "data/birds").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/birds/4.png").symlink_to(tmp_path / "data/cats/1.png")
    (tmp_path / "elsewhere/loop").symlink_to(tmp_path / "data")
    (tmp_path / "data/also").symlink_to("cats")
    used, said = found_in(tmp_path / "data")
    assert used == ["birds/3.png", "birds/4.png", "cat.gif/2.png", "cats/1.png"]
    assert said == [f"{tmp_path}/data: ignored 2 links to folders that are read already (also, birds/loop)"]


def test_what_is_ignored_is_said(tmp_path: Path) -> None:
    assert found_in(paint(tmp_path / "1.png").parent) == (["1.png"], [])
    for name in ("a.txt", "b.txt", "c.heic", "README", ".DS_Store"):
        (tmp_path / name).write_text("no image")
    (tmp_path / "nothing").mkdir()
    said = f"{tmp_path}: ignored 4 files (.heic, .txt, without a suffix); 1 folder without images (nothing)"
    assert found_in(tmp_path) == (["1.png"], [said])
    (tmp_path / "1.png").unlink()
    with pytest.raises(DataError) as error:
        ImageFolder(str(tmp_path)).split("train")
    complaint(error, tmp_path, "found none, but 4 files (.heic, .txt, without a suffix); 1 folder without images")


def test_what_is_no_regular_file_is_never_opened(tmp_path: Path) -> None:
    paint(tmp_path / "1.png")
    os.mkfifo(tmp_path / "2.png")
    (tmp_path / "3.png").symlink_to("nowhere.png")
    with pytest.raises(DataError) as error:
        ImageFolder(str(tmp_path)).everything()
    complaint(error, tmp_path / "2.png", "it is not a regular file", "--skip-corrupt")
    with pytest.raises(DataError) as error:
        read_image(tmp_path / "2.png", (1, 4, 4))
    complaint(error, tmp_path / "2.png", "it is not a regular file")
    used, said = found_in(tmp_path, skip_corrupt=True)
    assert used == ["1.png"] and "left out 2 of 3 images that cannot be decoded, the first is 2.png" in said[0]


def test_folders_that_cannot_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paint(tmp_path / "cats/1.png"), paint(tmp_path / "dogs/2.png")
    scan = os.scandir

    def locked(path: Path) -> object:
        if Path(path).name == "dogs":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(DataError) as error:
        ImageFolder(str(tmp_path)).everything()
    complaint(error, tmp_path / "dogs", "cannot be read (Permission denied)", "check its permissions")


def test_one_image_tells_the_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "0.png").write_bytes(b"")
    for number in range(1, 5):
        paint(tmp_path / f"{number}.png", (60, 40))
    decoded = []
    monkeypatch.setattr(own, "decode", lambda path, *rest: (decoded.append(path.name), decode(path, *rest))[1])
    assert ImageFolder(str(tmp_path), skip_corrupt=True).event_shape == (3, 40, 60)
    assert decoded == ["0.png", "1.png"]


def test_images_are_converted_to_a_size_and_to_channels(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", (6, 4), "L", 50)
    paint(tmp_path / "b.jpg", (9, 12), "RGB", 50)
    half = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    half.save(tmp_path / "c.png")
    data = ImageFolder(str(tmp_path), size=4, channels=1)
    x = torch.cat([data.split(which).x for which in SPLITS])
    assert data.event_shape == (1, 4, 4)
    assert data.num_classes is None
    assert sorted(x.flatten(1).float().mean(1).round().int().tolist()) == [50, 50, 255]  # transparent pixels are white
    assert ImageFolder(str(tmp_path), size=5, channels=3).event_shape == (3, 5, 5)


def test_images_are_rotated_by_their_orientation(tmp_path: Path) -> None:
    for number in range(3):
        image = Image.new("L", (6, 4), number)
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(tmp_path / f"{number}.jpg", exif=exif)
    assert ImageFolder(str(tmp_path)).event_shape == (1, 6, 4)


def test_corrupt_images_are_refused_or_left_out(tmp_path: Path) -> None:
    for number in range(4):
        paint(tmp_path / f"{number}.png", value=number)
    (tmp_path / "2a.jpg").write_bytes(b"no image")
    truncated = paint(tmp_path / "2b.png", (60, 60))
    truncated.write_bytes(truncated.read_bytes()[:70])
    (tmp_path / "2c.png").write_bytes(b"")
    with pytest.raises(DataError) as error:
        ImageFolder(str(tmp_path)).split("train")
    complaint(error, tmp_path / "2a.jpg", "skip_corrupt", "--skip-corrupt")
    data = ImageFolder(str(tmp_path), skip_corrupt=True)
    with pytest.warns(UserWarning, match=r"left out 3 of 7 images.*2a\.jpg"):
        data.prepare_data(), data.split("train")
    assert [path.name for path in data.skipped] == ["2a.jpg", "2b.png", "2c.png"]
    assert sum(len(data.split(which)) for which in SPLITS) == 4


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    empty, mixed, few, spoilt, deep = (tmp_path / name for name in ("empty", "mixed", "few", "spoilt", "deep"))
    empty.mkdir()
    paint(mixed / "a.png")
    paint(few / "a.png"), paint(few / "b.png")
    spoilt.mkdir()
    (spoilt / "a.png").write_bytes(b"")
    for number in range(3):
        paint(deep / f"{number}.png", mode="I;16")
    for folder, *parts in (
        (tmp_path / "nowhere", "expected a folder of images", "nothing"),
        (mixed / "a.png", "expected a folder of images", "a file"),
        (empty, "expected images", "found none"),
        (few, "at least 3 examples", "found 2"),
        (deep, "0.png", "8 bits"),
    ):
        with pytest.raises(DataError) as error:
            ImageFolder(str(folder)).split("train")
        complaint(error, folder, *parts)
    with pytest.raises(DataError) as error:
        ImageFolder(str(spoilt), skip_corrupt=True).split("train")
    complaint(error, spoilt, "none of which can be decoded")


@pytest.mark.parametrize(
    ("other", "found"),
    [({"size": (5, 4)}, "4x5 pixels in 3 channels"), ({"mode": "L"}, "4x6 pixels in 1 channel")],
)
def test_images_that_disagree(other: dict, found: str, tmp_path: Path) -> None:
    paint(tmp_path / "a.png"), paint(tmp_path / "b.png")
    odd = paint(tmp_path / "c.png", **other)
    with pytest.raises(DataError) as error:
        ImageFolder(str(tmp_path)).split("train")
    complaint(error, odd, "4x6 pixels in 3 channels as in a.png", f"found {found}", "pass size= and channels=")


def test_images_beside_folders_of_labels(tmp_path: Path) -> None:
    paint(tmp_path / "cats/a.png")
    loose = paint(tmp_path / "b.png")
    with pytest.raises(DataError) as error:
        ImageFolder(str(tmp_path)).split("train")
    complaint(error, loose, "cats/", "move it into one of them")


def test_impossible_conversions(tmp_path: Path) -> None:
    for argument, value in (("size", 0), ("channels", 2)):
        with pytest.raises(ConfigError) as error:
            ImageFolder(str(tmp_path), **{argument: value})
        complaint(error, argument, f"found {value}")


# arrays


def test_arrays_of_every_kind(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    images = draw.integers(256, size=(20, 3, 4, 5)).astype(np.uint8)
    labels = np.arange(20) % 4
    np.savez(tmp_path / "images.npz", x=images, labels=labels)
    data = Arrays(str(tmp_path / "images.npz"), seed=1)
    assert (data.name, data.event_shape, data.levels, data.num_classes) == ("images", (3, 4, 5), 256, 4)
    assert [len(data.split(which)) for which in SPLITS] == [16, 3, 1]
    rows = {bytes(image): label for image, label in zip(images, labels, strict=True)}
    together = [(bytes(x.numpy()), int(y)) for s in map(data.split, SPLITS) for x, y in zip(s.x, s.labels, strict=True)]
    assert dict(together) == rows
    assert next(data.batches("train")).x.max() <= 1

    binary = Arrays.from_array(torch.from_numpy(images[:, :1] > 127), name="bits")
    assert (binary.name, binary.levels, binary.num_classes) == ("bits", 2, None)
    assert next(binary.batches("train")).x.unique().tolist() == [0.0, 1.0]

    points = draw.normal(size=(9, 2)) * 100
    np.save(tmp_path / "points.npy", points)
    plane = Arrays(str(tmp_path / "points.npy"))
    assert (plane.levels, plane.event_shape) == (None, (2,))
    found = torch.cat([next(plane.batches(which)).x for which in SPLITS])
    assert found.dtype == torch.float32
    assert torch.equal(found.sort(0).values, torch.from_numpy(points).float().sort(0).values)


IMAGES = np.linspace(0, 1, 5 * 16, dtype=np.float32).reshape(5, 1, 4, 4)


@pytest.mark.parametrize(
    ("x", "labels", "parts"),
    [
        (IMAGES[:, 0], None, ["[N, C, H, W]", "(5, 4, 4)", "x[:, None]"]),
        (np.zeros((32, 32, 3), np.uint8), None, ["[N, C, H, W]", "(32, 32, 3)"]),
        (np.array([["a", "b"]] * 5), None, ["x: ", "expected numbers"]),
        (IMAGES, np.array([["a"]] * 5), ["labels", "5 integers", "(5, 1)"]),
        (IMAGES[:, :0], None, ["(5, 0, 4, 4)"]),
        (np.zeros((5, 32, 32, 3), np.uint8), None, ["channels first", "(0, 3, 1, 2)"]),
        (IMAGES * 255, None, ["in [0, 1]", "0 to 255", "uint8"]),
        (IMAGES - 0.5, None, ["in [0, 1]", "-0.5 to 0.5"]),
        (np.where(IMAGES > 0.9, np.nan, IMAGES), None, ["NaN", "1 of 5", "first at 4"]),
        (np.where(IMAGES < 0.3, np.inf, IMAGES), None, ["infinity", "2 of 5", "first at 0"]),
        (np.full((5, 2), 1e300), None, ["infinity", "5 of 5"]),
        ((IMAGES > 0.5).astype(np.uint8), None, ["at most 1", "bool"]),
        (IMAGES.astype(np.int64), None, ["found int64", "convert"]),
        (IMAGES.astype(np.complex64), None, ["found complex64"]),
        (IMAGES, np.zeros(4, np.int64), ["labels", "5 integers", "(4,)"]),
        (IMAGES, np.zeros(5), ["labels", "5 integers", "float64"]),
        (IMAGES, np.arange(5) - 1, ["labels", "found -1"]),
    ],
)
def test_arrays_that_cannot_be_used(x: np.ndarray, labels: np.ndarray | None, parts: list[str], tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    np.savez(path, x=x, **({} if labels is None else {"labels": labels}))
    with pytest.raises(DataError) as error:
        Arrays(str(path))
    complaint(error, path, *parts)
    with pytest.raises(DataError) as error:
        Arrays.from_array(x, labels, name="mine")
    complaint(error, "mine: ", *parts)


def same(a: Arrays, b: Arrays) -> bool:
    whole, other = a.everything(), b.everything()
    return torch.equal(whole.x, other.x) and a.levels == b.levels and a.event_shape == b.event_shape


def test_arrays_of_every_layout(tmp_path: Path) -> None:
    """NumPy's views, orders of bytes and kinds of floats make the same data set, from memory and from files."""
    images = np.random.default_rng(0).integers(0, 256, (6, 1, 8, 9)).astype(np.uint8)
    plain, flipped = Arrays.from_array(images), Arrays.from_array(np.ascontiguousarray(images[..., ::-1]))
    frozen = images.copy()
    frozen.flags.writeable = False
    for x, expected in (
        (images[..., ::-1], flipped),
        (images[:, 0], plain),
        (images[:, 0, :, ::-1], flipped),
        (np.asfortranarray(images), plain),
        (frozen, plain),
        (torch.from_numpy(images), plain),
    ):
        assert same(Arrays.from_array(x), expected)
        np.save(tmp_path / "x.npy", np.asarray(x))
        assert same(Arrays(str(tmp_path / "x.npy")), expected)
    grey = images / np.float64(255)
    for dtype in (">f4", ">f8", "<f8", np.longdouble):
        assert same(Arrays.from_array(grey.astype(dtype)), Arrays.from_array(grey.astype(np.float32)))
    rough = Arrays.from_array(grey.astype(">f2")).everything().x
    assert rough.dtype == torch.float32 and torch.allclose(rough, torch.from_numpy(grey).float(), atol=1e-3)
    swapped = Arrays.from_array(images, np.arange(6, dtype=">i8")).everything().labels
    assert swapped is not None and swapped.tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(DataError, match="mine: x: expected numbers"):
        Arrays.from_array([[1.0, 2.0], [3.0]], name="mine")


def test_labels_may_be_words(tmp_path: Path) -> None:
    words = np.array(["dog", "cat", "dog", "owl", "cat"])
    np.savez(tmp_path / "x.npz", x=IMAGES, labels=words)
    for labels in (words, words.tolist(), words.astype("S"), words.astype(object)):
        data = Arrays.from_array(IMAGES, labels)
        for found in (data, Arrays(str(tmp_path / "x.npz"))):
            whole = found.everything()
            assert found.classes == ["cat", "dog", "owl"] and found.num_classes == 3
            assert whole.labels is not None and whole.labels.tolist() == [1, 0, 1, 2, 0]
    assert Arrays.from_array(IMAGES, np.arange(5)).classes is None


def test_an_array_that_stands_alone_may_have_any_name(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    for arrays in (
        {"x": IMAGES, "y": IMAGES},
        {"arr_0": IMAGES},
        {"images": IMAGES},
        {"images": IMAGES, "labels": [0] * 5},
    ):
        np.savez(path, **arrays)
        data = Arrays(str(path))
        assert same(data, Arrays.from_array(IMAGES)) and (data.num_classes == 1) == ("labels" in arrays)
    np.savez(path, **{f"array_{number}": np.zeros(1) for number in range(300)})
    with pytest.raises(DataError) as error:
        Arrays(str(path))
    complaint(error, path, "an array called x, found array_0, array_1", ", ...; save it with numpy.savez(path, x=...)")
    assert len(str(error.value)) < 200 + len(str(path))


def test_splits_need_three_examples() -> None:
    for num in range(6):
        data = Arrays.from_array(IMAGES[:num], np.arange(num), name="few")
        if num:
            whole = data.everything()
            assert torch.equal(whole.x, torch.from_numpy(IMAGES[:num]))
            assert whole.labels is not None and torch.equal(whole.labels, torch.arange(num))
        if num >= 3:
            assert len(data.split("train")) and len(data.split("valid")) and len(data.split("test"))
            continue
        for use in (lambda data=data: data.split("valid"), lambda data=data: data.event_shape):
            with pytest.raises(DataError) as error:
                use()
            complaint(error, "few: ", "at least 3 examples", f"found {num}")
    with pytest.raises(DataError) as error:
        Arrays.from_array(IMAGES[:0]).everything()
    complaint(error, "at least 1 example", "found none")


def test_examples_stay_in_their_split_when_others_are_added(tmp_path: Path) -> None:
    def splits(data: DataModule) -> list[set[int]]:
        return [set(data.split(which).x.flatten(1).sum(1).tolist()) for which in SPLITS]

    points = np.arange(1.0, 2001.0, dtype=np.float32)[:, None]
    few, many = (splits(Arrays.from_array(points[:num])) for num in (1000, 2000))
    assert all(a < b for a, b in zip(few, many, strict=True))
    assert sum(map(len, many)) == 2000
    assert all(abs(len(part) - 200) < 60 for part in many[1:]), "a tenth each, within 4.5 deviations"
    assert splits(Arrays.from_array(points, seed=1)) != many

    for num in range(1, 41):
        Image.fromarray(np.full((1, 1), num, np.uint8)).save(tmp_path / f"{num:02}.png")
    before = splits(ImageFolder(str(tmp_path)))
    for num in range(41, 81):  # new names lie between the old ones, and one is not valid text
        name = f"{num - 40:02}-new.png" if num < 80 or sys.platform != "linux" else os.fsdecode(b"\xff.png")
        Image.fromarray(np.full((1, 1), num, np.uint8)).save(tmp_path / name)
    after = splits(ImageFolder(str(tmp_path)))
    assert all(a < b for a, b in zip(before, after, strict=True))


def test_files_without_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "own.npy"
    for content, *parts in (
        (None, "found nothing"),
        (b"", "cannot be read"),
        (b"no array", "cannot be read"),
        (b"PK\x03\x04 no archive", "cannot be read"),
    ):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(DataError) as error:
            Arrays(str(path))
        complaint(error, path, *parts)
        assert "pickle" not in str(error.value)
    np.save(path, np.array([print, "object"]), allow_pickle=True)
    with pytest.raises(DataError) as error:
        Arrays(str(path))
    complaint(error, path, "cannot be read (it has another format, or contains objects instead of numbers)")
    np.savez_compressed(tmp_path / "damaged.npz", x=IMAGES)
    with monkeypatch.context() as patch, pytest.raises(DataError) as error:
        patch.setattr(np.lib.npyio.NpzFile, "__getitem__", lambda *_: zlib.decompress(b"no such stream"))
        Arrays(str(tmp_path / "damaged.npz"))
    complaint(error, "damaged.npz", "cannot be read (Error -3 while decompressing data")
    np.savez(tmp_path / "own.npz", images=IMAGES, y=np.arange(5))
    with pytest.raises(DataError) as error:
        Arrays(str(tmp_path / "own.npz"))
    complaint(error, "an array called x", "found images, y")


@pytest.mark.parametrize("kind", [MNIST, FashionMNIST, BinarizedMNIST, CIFAR10, Digits, Rivers, Bars])
def test_own_data_do_not_take_the_names_of_published_data(kind: type[DataModule], tmp_path: Path) -> None:
    published = [kind(), kind(binarize="dynamic")] if issubclass(kind, MNIST) else [kind()]
    for name in {data.name for data in published}:
        np.save(tmp_path / f"{name}.npy", IMAGES)
        assert Arrays(str(tmp_path / f"{name}.npy")).name == f"own-{name}"
    np.save(tmp_path / "mine.npy", IMAGES)
    assert Arrays(str(tmp_path / "mine.npy")).name == "mine"
