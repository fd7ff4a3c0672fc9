"""What the engine is made of: features kept only while they are needed, packed masks, work in the background."""

import dataclasses
import threading
import time
from collections import deque
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sam2.modeling.sam2_utils import get_1d_sine_pe

from volprompt.models.base import _pack_on_device, pack_bits, without_initialisation
from volprompt.models.features import SliceFeatures, equal_neighbours, gather
from volprompt.models.memory_bank import MemoryBank
from volprompt.models.memory_plan import MemoryRules, Row, plan_step, reads_of, writes_of
from volprompt.models.tracked import TrackedObject, order_of_need, order_of_round, wait_for_forwards
from volprompt.prompts.corrections import Click
from volprompt.prompts.schemes import ObjectPrompt
from volprompt.segmentation.background import StoreBehind, load_ahead
from volprompt.segmentation.masks import unpack_bits


class Encoder:
    """Encodes a slice as its number, and counts."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __call__(self, slices: list[int]) -> list[torch.Tensor]:
        self.batches.append(slices)
        numbers = torch.tensor(slices, dtype=torch.float32).reshape(-1, 1, 1, 1)
        return [numbers.expand(-1, 2, 4, 4), numbers.expand(-1, 3, 2, 2)]


@pytest.mark.parametrize(
    ("prompted", "depth", "head_start", "order"),
    [
        ([[2]], 5, 9, [2, 3, 4, 1, 0]),
        ([[2]], 5, 0, [2, 3, 1, 4, 0]),
        ([[0]], 1, 9, [0]),
        ([[1]], 5, 1, [1, 2, 3, 0, 4]),
        ([[1, 3]], 5, 9, [1, 3, 2, 4, 0]),
        ([[2], [1]], 4, 9, [2, 1, 3, 2, 3, 1, 0, 0]),
        ([[2], [1]], 4, 0, [2, 1, 3, 2, 1, 0, 3, 0]),
    ],
)
def test_the_order_in_which_slices_are_needed(
    prompted: list[list[int]], depth: int, head_start: int, order: list[int]
) -> None:
    assert order_of_need(prompted, depth, head_start) == order


@pytest.mark.parametrize(
    ("head_start", "order"),
    [(9, [0, 3, 4, 2, 4, 1, 0]), (0, [0, 3, 4, 2, 1, 0, 4])],
)
def test_the_order_in_which_slices_are_needed_in_a_round(head_start: int, order: list[int]) -> None:
    """A click on slice 0 of what was prompted on 3 and 2, and one on slice 3 of what was prompted on 1.

    They set out from 2 and 1, and pass by 0, 2, 3 and 1, 3.
    """
    features = SliceFeatures(Encoder(), [], 5, batch_size=1, capacity=9)

    def tracked(*slices: int) -> TrackedObject:
        points, labels = np.zeros((1, 2), np.float32), np.ones(1, np.int32)
        prompts = [ObjectPrompt("femur", index, points, labels) for index in slices]
        return TrackedObject(prompts, features, (4, 4), torch.zeros(0), torch.zeros(0))

    first, second = tracked(3, 2), tracked(1)
    clicked = [(first, Click(0, 1, 1, 0)), (second, Click(3, 2, 2, 1))]
    assert order_of_round(clicked, 5, head_start) == order
    assert first.start == 2
    assert first.add_click(clicked[0][1]).labels.tolist() == [0]
    assert first.prompted == [3, 2, 0]
    assert first.add_click(Click(3, 1, 0, 1)).points.tolist() == [[0, 0], [1, 0]]
    assert first.prompted == [3, 2, 0]
    assert first.start == 2


@pytest.mark.parametrize("lasting", [False, True])
def test_the_places_of_a_row_in_the_memory_bank(lasting: bool) -> None:
    """A prompted slice keeps its place; the others give theirs back unless the row is lasting."""
    points, labels = np.zeros((1, 2), np.float32), np.ones(1, np.int32)
    features = SliceFeatures(Encoder(), [], 5, batch_size=1, capacity=9)
    given = [ObjectPrompt("femur", index, points, labels) for index in (3, 1)]
    row = Row(0, TrackedObject(given, features, (4, 4), torch.zeros(0), torch.zeros(0)), range(7, 12), lasting)
    assert row.start == 1
    assert row.prompted == {3: 7, 1: 8}
    assert (row.remember(2), row.remember(4), row.remember(2)) == (11, 10, 11)
    row.forget(2)
    assert (2 in row.places) == lasting
    assert row.remember(2) == 11
    assert row.remember_prompted(2) == 11  # clicked on: the same place, but no slice on the way any more
    assert row.remember_prompted(0) == 9
    assert row.remember_prompted(3) == 7
    assert list(row.prompted) == [3, 1, 2, 0]
    assert row.places == {4: 10}
    assert row.passed == {4}
    row.logits = {4: torch.zeros(1), 3: torch.ones(1)}
    row.forget_the_way()
    assert (row.places, row.passed, row.free, list(row.logits)) == ({}, set(), [10], [3])


RULES = MemoryRules(slices=3, pointers=4)


def memory_parts() -> Any:
    """What the bank reads of a model's parts."""
    return SimpleNamespace(
        memory_positions=torch.zeros(1, 2, 8),
        positions_in_time=torch.arange(3.0)[:, None].expand(3, 8),
        encode_distances=lambda shares: get_1d_sine_pe(shares, dim=8),
    )


@pytest.mark.parametrize("pointers", [True, False])
def test_what_a_step_recalls(pointers: bool) -> None:
    """Slice 3 of an object that was prompted on slice 1: one prompted memory, one on the way, two pointers."""
    rules = RULES if pointers else dataclasses.replace(RULES, pointers=0)
    features = SliceFeatures(Encoder(), [], 5, batch_size=1, capacity=9)
    given = [ObjectPrompt("femur", 1, np.zeros((1, 2), np.float32), np.ones(1, np.int32))]
    row = Row(0, TrackedObject(given, features, (4, 4), torch.zeros(0), torch.zeros(0)), range(4), lasting=False)
    bank = MemoryBank(memory_parts(), rows=1, places=4, depth=5)
    device = torch.device("cpu")
    kept = [(row, 1, row.prompted[1]), (row, 2, row.remember(2))]
    (writes,) = writes_of([kept], 5, device)
    bank.store(
        writes, torch.tensor([10.0, 20.0]).reshape(2, 1, 1).expand(2, 2, 8), torch.tensor([[1.0], [2.0]]).expand(2, 16)
    )
    step = plan_step(rules, row, 3, reverse=False)
    assert step.spatial == [(0, 0), (2, 3)]
    assert step.pointers == ([(2, 1), (1, 2)] if pointers else [])
    (reads,) = reads_of(rules, [[step]], 5, device)
    memory, encoding, count = bank.recall(reads)
    assert memory[0, :4, 0].tolist() == [10, 10, 20, 20]
    assert encoding[0, :4, 0].tolist() == [2, 2, 0, 0]  # the prompted one has the last of the encodings in time
    assert count == (4 if pointers else 0)
    assert memory[0, 4:, 0].tolist() == ([1, 1, 2, 2] if pointers else [])
    if pointers:
        # A pointer is two tokens wide; the farthest can be three slices away.
        expected = get_1d_sine_pe(torch.tensor([2 / 3, 1 / 3]), dim=8).repeat_interleave(2, dim=0)
        assert torch.allclose(encoding[0, 4:], expected)


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({}, 4),
        ({"slices": 6}, 6),
        ({"stride": 2}, 6),
        ({"pointers": 9}, 9),
    ],
)
def test_the_head_start_of_a_forward_pass(settings: dict[str, int], steps: int) -> None:
    """As far as memories or pointers reach; a shorter forward pass is waited for to its end."""
    assert dataclasses.replace(RULES, **settings).head_start == steps
    assert wait_for_forwards(steps, 3) == 3
    assert wait_for_forwards(steps, 30) == steps


def test_each_slice_is_encoded_once_with_those_that_follow() -> None:
    encoder = Encoder()
    features = SliceFeatures(encoder, [2, 3, 4, 5, 1, 0], 6, batch_size=2, capacity=9)
    features.require([2])
    features.require([2, 3])
    assert encoder.batches == [[2, 3]]
    features.require([1])  # the other direction begins: its batch follows it, not what lies before it
    assert encoder.batches == [[2, 3], [1, 0]]
    assert features.pending == [4, 5]


def test_features_are_forgotten_after_their_last_use() -> None:
    features = SliceFeatures(Encoder(), [7, 7, 7, 8], 9, batch_size=1, capacity=9)
    features.require([7])
    features.use(7, 2)
    assert float(features.use(7)[0].mean()) == 7
    with pytest.raises(KeyError):
        features.use(7)


def test_a_prompt_that_travels_leaves_nothing_behind() -> None:
    order = order_of_need([[50]], 100, 16)
    features = SliceFeatures(Encoder(), order, 100, batch_size=4, capacity=100)
    most = 0
    for index in order:
        features.require([index])
        most = max(most, len(features._kept))
        features.use(index)
    assert most == 4


def test_what_is_needed_last_makes_room() -> None:
    # Slices 1 to 4 are needed again in the reverse order, and slice 1 by an image scheme in the end.
    encoder = Encoder()
    features = SliceFeatures(encoder, [1, 2, 3, 4, 4, 3, 2, 1, 1], 5, batch_size=1, capacity=2)
    for index in (1, 2, 3):
        features.require([index])
        features.use(index)
    assert features.crowded
    features.make_room([])
    assert sorted(features._kept) == [2, 3]
    assert features.pending == [4, 1]
    features.require([4])
    features.make_room([2, 4])  # what a step is about to use stays, also where it is needed later
    assert sorted(features._kept) == [2, 4]
    assert features.pending == [3, 1]
    assert not features.crowded
    features.use(4, 2)
    features.require([3, 1])
    assert float(features.use_last(1)[0].mean()) == 1
    for index in (3, 2, 1):
        assert float(features.use(index)[0].mean()) == index
    assert features._kept == {}
    assert encoder.batches == [[1], [2], [3], [4], [3], [1]]


def test_lasting_features_stay_for_uses_that_are_announced_later() -> None:
    encoder = Encoder()
    features = SliceFeatures(encoder, [0, 1, 2], 4, batch_size=4, capacity=2, lasting=True)
    features.require([0, 1, 2])
    for index in (0, 1, 2):
        features.use(index)
    assert not features.pending
    features.expect([2, 3, 2])
    assert features.pending == [3]
    features.make_room([])  # slice 2 is needed next; of those without a known use the first one is left
    assert sorted(features._kept) == [1, 2]
    assert features.pending == [3]  # slice 0 may be needed again, but nothing says so
    features.expect([0])
    assert features.pending == [3, 0]
    features.require([3, 0])
    features.use(2)
    features.use(2)
    features.use(3)
    features.use(0)
    assert encoder.batches == [[0, 1, 2], [3, 0]]
    features.expect([1])
    features.let_go()
    assert list(features._kept) == [1]
    features.use(1)
    assert features._kept == {}


def test_gathering_slices_of_two_volumes() -> None:
    first, second = (SliceFeatures(Encoder(), [1, 1, 2], 3, batch_size=3, capacity=9) for _ in range(2))
    first.require([1, 2])
    second.require([1])
    fine, coarse = gather([(first, 1), (second, 1), (first, 2)])
    assert fine.shape == (3, 2, 4, 4)
    assert coarse[:, 0, 0, 0].tolist() == [1, 1, 2]


@pytest.mark.parametrize(
    ("slices", "neighbours"),
    [
        ("A1 A1 A1 A1", 4),
        ("A1 A1 A2 A2", 2),
        ("A1 B1 B1", 1),
        ("A1 A2 A1", 1),
        ("A1 A1 A1 A1 B1 B1", 2),
        ("A1", 1),
    ],
)
def test_equal_neighbours(slices: str, neighbours: int) -> None:
    """Slice 1 of volume A, and so on."""
    volumes = {name: SliceFeatures(Encoder(), [1, 2], 3, batch_size=1, capacity=9) for name in "AB"}
    assert equal_neighbours([(volumes[name], int(number)) for name, number in slices.split()]) == neighbours


@pytest.mark.parametrize("width", [1, 7, 8, 9, 21])
def test_packed_masks_come_back(width: int) -> None:
    masks = np.random.default_rng(width).random((3, 5, width)) > 0.5
    bits = pack_bits(torch.from_numpy(masks)).numpy()
    assert bits.shape == (3, 5, -(-width // 8))
    assert (bits == np.packbits(masks, axis=-1)).all()
    assert (bits == _pack_on_device(torch.from_numpy(masks)).numpy()).all()
    assert (unpack_bits(bits, width) == masks).all()


def test_no_weights_are_drawn_that_are_loaded_next() -> None:
    state = torch.get_rng_state()
    with without_initialisation():
        module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Conv2d(1, 2, 3), torch.nn.Embedding(2, 2))
        torch.nn.init.trunc_normal_(module[0].weight)
    assert (torch.get_rng_state() == state).all()
    assert not torch.nn.Linear(50, 50).weight.eq(0).any()


def test_loading_is_one_item_ahead() -> None:
    loaded: list[int] = []
    seen = []
    for item, value in load_ahead(range(5), lambda n: loaded.append(n) or 10 * n):
        seen.append((item, value))
        assert len(loaded) <= item + 2
    assert seen == [(n, 10 * n) for n in range(5)]


def test_an_error_in_loading_is_raised_in_its_turn() -> None:
    def load(item: int) -> int:
        if item == 2:
            raise OSError("unreadable")
        return item

    seen: list[int] = []
    with pytest.raises(OSError, match="unreadable"):
        seen.extend(item for item, _ in load_ahead(range(5), load))
    items = load_ahead(range(5), load)
    assert [next(items)[0], next(items)[0]] == [0, 1]
    with pytest.raises(OSError, match="unreadable"):
        next(items)


def test_what_is_left_of_loading_ahead_waits_for_nothing() -> None:
    """A job that fails leaves the generator to the garbage collector, which may run in a thread that is starting."""
    gate = threading.Event()

    def load(item: int) -> int:
        assert item == 0 or gate.wait(10)
        return item

    items = load_ahead(range(3), load)
    assert next(items) == (0, 0)
    started = time.monotonic()
    items.close()
    assert time.monotonic() - started < 5
    gate.set()


def test_storing_is_bounded_and_keeps_the_order() -> None:
    gates = deque(threading.Event() for _ in range(4))
    opened = dict(enumerate(gates))
    done: list[tuple[int, int]] = []

    def store(item: int) -> int:
        assert opened[item].wait(10)
        return item * item

    with StoreBehind(store, lambda item, value: done.append((item, value)), limit=2, threads=2) as behind:
        behind.add(0)
        behind.add(1)
        assert done == []
        threading.Timer(0.1, opened[0].set).start()
        behind.add(2)  # waits until the first one is stored
        assert done == [(0, 0)]
        for gate in gates:
            gate.set()
        behind.add(3)
    assert done == [(0, 0), (1, 1), (2, 4), (3, 9)]


def test_an_error_in_storing_reaches_the_job() -> None:
    def store(item: int) -> None:
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):  # noqa: SIM117, PT012
        with StoreBehind(store, lambda *_: None, limit=1, threads=1) as behind:
            behind.add(0)
            behind.add(1)


def test_an_error_beside_it_ends_the_storing() -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: SIM117, PT012
        with StoreBehind(lambda item: item, lambda *_: None, limit=1, threads=1) as behind:
            behind.add(0)
            raise ZeroDivisionError
