"""Order, exact resumption, and division among processes."""

from itertools import chain
from pathlib import Path

import lightning
import pytest
import torch
from small_data import SPLITS, Grey, attached, complaint

from zoo.data import Loader
from zoo.data.base import permutation
from zoo.errors import ConfigError


def seen(loader: Loader) -> list[list[int]]:
    return [batch.index.tolist() for batch in loader]


def test_training_sees_every_image_once_per_epoch_in_a_new_order() -> None:
    loader = Grey(batch_size=5, seed=7).train_dataloader()
    first, second = seen(loader), seen(loader)
    assert [len(batch) for batch in first] == [5] * len(loader) == [5, 5, 5, 5]
    assert len(set(chain(*first))) == 20
    assert first != second
    other = Grey(batch_size=5, seed=8).train_dataloader()
    assert seen(other) != first
    again = Grey(batch_size=5, seed=7).train_dataloader()
    assert [seen(again), seen(again)] == [first, second]


def test_evaluation_sees_everything_in_order() -> None:
    data = Grey(batch_size=5)
    for loader in (data.val_dataloader(), data.test_dataloader()):
        assert len(loader) == 5
        next(iter(loader))  # an unfinished pass does not shift the next one
        assert list(chain(*seen(loader))) == list(range(23))


def test_training_on_less_than_a_batch() -> None:
    loader = Grey(batch_size=100).train_dataloader()
    assert len(loader) == 1
    assert sorted(seen(loader)[0]) == list(range(23))


def test_a_loader_resumes_from_any_position() -> None:
    loader = Grey(batch_size=5).train_dataloader()
    states, batches = [loader.state_dict()], []
    for _ in range(3):
        for batch in loader:
            states.append(loader.state_dict())  # in a checkpoint that is written after this batch
            batches.append(batch.index.tolist())
    assert states[4] == {"epoch": 1, "position": 0, "num": 23}  # already in the next epoch before the last batch
    for step, state in enumerate(states):
        resumed = Grey(batch_size=5).train_dataloader()
        resumed.load_state_dict(state)
        rest = list(chain(*(seen(resumed) for _ in range(3))))
        assert rest[: 12 - step] == batches[step:]


def test_a_state_of_another_batch_size_or_split_is_refused() -> None:
    with pytest.raises(ConfigError) as error:
        Grey(batch_size=10).train_dataloader().load_state_dict({"epoch": 0, "position": 2})
    complaint(error, "batch 2", "batch size")
    with pytest.raises(ConfigError, match=r"began with 7 training examples, found \d+; resume it with the same data"):
        Grey(batch_size=10).train_dataloader().load_state_dict({"epoch": 0, "position": 0, "num": 7})


class Recorder(lightning.LightningModule):
    """Learns nothing, and records its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[tuple[list[int], torch.Tensor]] = []

    def training_step(self, batch: tuple, batch_idx: int) -> torch.Tensor:
        self.seen.append((batch.index.tolist(), batch.x))
        return self.weight * batch.x.mean()

    def validation_step(self, batch: tuple, batch_idx: int) -> None:
        assert batch.x.dtype == torch.float32

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.parametrize("limit", [None, 3])
@pytest.mark.parametrize("stop", [2, 4, 7])
def test_a_resumed_run_sees_the_batches_of_an_uninterrupted_one(stop: int, limit: int | None, tmp_path: Path) -> None:
    def run(steps: int, resume: Path | None = None) -> tuple[Recorder, lightning.Trainer]:
        model, data = Recorder(), Grey(batch_size=5, binarize="dynamic")
        trainer = lightning.Trainer(
            max_steps=steps,
            max_epochs=-1,
            limit_train_batches=limit,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(model, data, ckpt_path=resume, weights_only=False if resume else None)
        return model, trainer

    whole, _ = run(10)
    part, trainer = run(stop)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    rest, _ = run(10, tmp_path / "run.ckpt")
    assert len(whole.seen) == 10
    found = part.seen + rest.seen
    assert [index for index, _ in found] == [index for index, _ in whole.seen]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(found, whole.seen, strict=True))
    if limit:  # a shortened epoch is over: the next one begins with its own first batch
        order = permutation(23, 0, epoch=1)[:5]
        assert whole.seen[limit][0] == order.tolist()


def test_overfitting_repeats_the_same_batches() -> None:
    loader = attached(Grey(batch_size=5), num_training_batches=2, overfit_batches=2).train_dataloader()
    assert seen(loader) == seen(loader) == [list(rows) for rows in permutation(23, 0)[:10].view(2, 5).tolist()]


@pytest.mark.parametrize("which", SPLITS)
def test_processes_together_see_the_batches_of_one_process(which: str) -> None:
    alone = list(Loader(Grey(batch_size=6, seed=5), which))
    ranks = [list(Loader(attached(Grey(batch_size=6, seed=5), rank, 2), which)) for rank in range(2)]
    assert len(alone) == len(ranks[0]) == len(ranks[1])
    for whole, even, odd in zip(alone, *ranks, strict=True):
        for joint, one, two in zip(whole, even, odd, strict=True):
            assert torch.equal(joint[0::2], one)
            assert torch.equal(joint[1::2], two)


def test_processes_divide_small_training_sets_evenly() -> None:
    ranks = [list(attached(Grey(batch_size=100), rank, 4).train_dataloader()) for rank in range(4)]
    assert [len(batch.x) for (batch,) in ranks] == [5, 5, 5, 5]


def test_a_batch_size_that_cannot_be_divided() -> None:
    with pytest.raises(ConfigError) as error:
        next(iter(attached(Grey(batch_size=5), 0, 2).train_dataloader()))
    complaint(error, "a multiple of 2, the number of processes", "found 5")
