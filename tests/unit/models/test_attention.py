"""Attention to memory with narrow values and real rotary positions, against the package's on the same weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from sam2.modeling.memory_attention import MemoryAttention as PackageMemoryAttention
from sam2.modeling.memory_attention import MemoryAttentionLayer
from sam2.modeling.sam.transformer import Attention, RoPEAttention
from sam2.sam2_video_predictor import SAM2VideoPredictor
from tests.unit.models.official import assert_same, loaded_sam2, resized
from tests.unit.models.test_equivalence import VIDEO_PROMPTS, official_mask, tracked

from volprompt.models import kernels, products
from volprompt.models.kernels import AttentionSettings, Shape, attend_by_shape, attention_kernel
from volprompt.models.memory_attention import MemoryAttention
from volprompt.models.sam2_parts import attention_of

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
SIDE, WIDTH, MEMORIES = 8, 32, 3
TOKENS, POINTERS = SIDE * SIDE, 10


def package(heads: int, rotary: bool, placed: bool, at_input: bool, narrow: int = 8) -> PackageMemoryAttention:
    torch.manual_seed(0)
    kind, more = (RoPEAttention, {"feat_sizes": (SIDE, SIDE)}) if rotary else (Attention, {})
    repeat = {"rope_k_repeat": True} if rotary else {}
    layer = MemoryAttentionLayer(
        activation="relu",
        cross_attention=kind(WIDTH, heads, kv_in_dim=narrow, **more, **repeat),
        d_model=WIDTH,
        dim_feedforward=48,
        dropout=0.1,
        pos_enc_at_attn=placed,
        pos_enc_at_cross_attn_keys=not placed,
        pos_enc_at_cross_attn_queries=placed,
        self_attention=kind(WIDTH, heads, **more),
    )
    attention = PackageMemoryAttention(WIDTH, at_input, layer, num_layers=2).eval()
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return attention


@pytest.fixture(params=["few at a time", "many at a time", "fused"])
def kernel(request: pytest.FixtureRequest) -> Iterator[str]:
    """Rows of scores in blocks of three queries, all at once, or the fused kernel."""
    at_once = {"few at a time": 3 * (MEMORIES * TOKENS + POINTERS), "many at a time": 2**30, "fused": 2**22}
    many = 2**23 if request.param == "fused" else 0
    with mock.patch.multiple(
        kernels, SCORES_AT_ONCE=at_once[request.param], MANY_SCORES=many, MANY_SCORES_BY_ONEDNN=many
    ):
        yield request.param


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize(
    ("rotary", "placed", "at_input"), [(True, False, True), (True, True, False), (False, True, True)]
)
@pytest.mark.parametrize("objects", ["on slices of their own", "on one slice", "in pairs"])
@pytest.mark.parametrize("numbers", ["complex", "real"])
def test_attention_equals_the_packages(
    kernel: str, heads: int, rotary: bool, placed: bool, at_input: bool, objects: str, numbers: str
) -> None:
    """To the last bit where kernel and numbers are those of the package."""
    theirs = package(heads, rotary, placed, at_input)
    with mock.patch.object(AttentionSettings, "in_complex_numbers", numbers == "complex"):
        ours: MemoryAttention = attention_of(theirs, TOKENS, MEMORIES, AttentionSettings(CPU, "float32"))
    assert ours.kernels["memory"].startswith("fused" if kernel == "fused" else "rows")
    assert (ours.layers[0].memory.value is None) == (kernel != "fused")
    coarse = torch.randn(4, WIDTH, SIDE, SIDE)
    neighbours = {"on slices of their own": 1, "in pairs": 2, "on one slice": 4}[objects]
    coarse = coarse[::neighbours].repeat_interleave(neighbours, dim=0)
    memory = torch.randn(4, MEMORIES * TOKENS + POINTERS, 8)
    positions, own = torch.randn_like(memory), torch.randn(1, TOKENS, WIDTH)
    with torch.no_grad():
        expected = theirs(
            curr=coarse.flatten(2).permute(2, 0, 1),
            memory=memory.transpose(0, 1),
            curr_pos=own.expand(4, -1, -1).transpose(0, 1),
            memory_pos=positions.transpose(0, 1),
            num_obj_ptr_tokens=POINTERS if rotary else 0,
        )
        found = ours(coarse, own, memory, positions, POINTERS, neighbours)
    found = found.flatten(2).permute(2, 0, 1)
    assert torch.allclose(found, expected, atol=2e-5, rtol=1e-5)
    assert kernel != "fused" or numbers == "real" or neighbours > 1 or (found == expected).all()


def test_pointers_have_no_place() -> None:
    """Tokens of object pointers are not rotated: in another order they are the same."""
    ours = attention_of(package(1, True, False, True), TOKENS, MEMORIES, AttentionSettings(CPU, "float32"))
    coarse, own = torch.randn(1, WIDTH, SIDE, SIDE), torch.randn(1, TOKENS, WIDTH)
    memory = torch.randn(1, MEMORIES * TOKENS + POINTERS, 8)
    positions = torch.randn_like(memory)
    last = MEMORIES * TOKENS
    turned = [*range(last), *reversed(range(last, last + POINTERS))]

    def attended(tokens: list[int], pointers: int) -> torch.Tensor:
        with torch.no_grad():
            return ours(coarse, own, memory[:, tokens], positions[:, tokens], pointers)

    assert torch.allclose(attended(sorted(turned), POINTERS), attended(turned, POINTERS), atol=1e-5)
    two_grids = list(range(2 * TOKENS))
    assert not torch.allclose(attended(two_grids, TOKENS), attended(two_grids, 0), atol=1e-3)


OFFICIAL, DEMO, EQUAL = Shape(4096, 28672, 256, 64), Shape(256, 1792, 64, 16), Shape(4096, 4096, 256, 256)
SMALL = Shape(64, 448, 64, 16)
EQUAL_IN_HEADS = Shape(4096, 4096, 256, 256, heads=4)
# Tokens of a decoder from pixels, from those of a small image, and from more keys than few.
FEW, FEW_OF_FEW, NOT_FEW = Shape(4096, 9, 16, 16), Shape(64, 8, 16, 16), Shape(4096, 17, 16, 16)
# Windows of an encoder: of one head, of two that are narrow or wide, too few of them, and too large ones.
WINDOWS, NARROW = Shape(64, 64, 96, 96, 1024, 1), Shape(16, 64, 24, 24, 512, 2)
WIDE, FEW_WINDOWS, LARGE = Shape(16, 64, 96, 96, 512, 2), Shape(64, 64, 96, 96, 255, 1), Shape(64, 65, 96, 96, 512, 1)


@pytest.mark.parametrize(
    ("device", "precision", "shape", "name", "narrow"),
    [
        (CUDA, "bfloat16", OFFICIAL, "flash", False),
        (CUDA, "float32", OFFICIAL, "memory-efficient", True),
        (CPU, "float32", OFFICIAL, "rows", True),
        (CPU, "float32", DEMO, "rows", True),
        (CPU, "float32", SMALL, "fused", False),
        (CPU, "float32", EQUAL, "rows", True),
        (CPU, "float32", EQUAL_IN_HEADS, "fused", False),
        (CPU, "bfloat16", OFFICIAL, "fused", False),
        (CPU, "float32", FEW, "columns", True),
        (CPU, "bfloat16", FEW, "columns", True),
        (CPU, "float32", FEW_OF_FEW, "fused", False),
        (CPU, "float32", NOT_FEW, "rows", True),
        (CUDA, "bfloat16", FEW, "flash", False),
        (CPU, "float32", WINDOWS, "batch", True),
        (CPU, "bfloat16", WINDOWS, "fused", False),
        (CPU, "float32", NARROW, "batch", True),
        *((CPU, "float32", shape, "fused", False) for shape in (WIDE, FEW_WINDOWS, LARGE)),
    ],
)
def test_the_table_of_kernels(device: torch.device, precision: str, shape: Shape, name: str, narrow: bool) -> None:
    with mock.patch.object(products, "FASTER", True):
        kernel = attention_kernel(AttentionSettings(device, precision), shape)
    assert (kernel.name, kernel.narrow) == (name, narrow)
    assert str(kernel) == f"{name}: {kernel.reason}"


def test_without_onednn_only_narrow_values_of_many_scores_gain_by_rows() -> None:
    settings = AttentionSettings(CPU, "float32")
    with mock.patch.object(products, "FASTER", False):
        found = [attention_kernel(settings, shape).name for shape in (OFFICIAL, DEMO, EQUAL)]
    assert found == ["rows", "fused", "fused"]


def test_the_packages_kernel_for_any_shape() -> None:
    settings = AttentionSettings(CPU, "float32", as_package=True)
    assert {attention_kernel(settings, shape).name for shape in (OFFICIAL, FEW, WINDOWS)} == {"fused"}


@pytest.mark.parametrize("shape", [FEW, NARROW, WINDOWS, LARGE], ids=str)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
def test_attention_by_shape_is_attention(shape: Shape, precision: torch.dtype) -> None:
    """Against scores in double precision; in bfloat16 no worse than the fused kernel, under autocast as in a job."""
    torch.manual_seed(0)
    windows = min(shape.windows, 300)

    def tokens(count: int) -> torch.Tensor:
        return torch.randn(windows, count, shape.heads, shape.width).transpose(1, 2).to(precision)

    query, key, value = tokens(shape.queries), tokens(shape.keys), tokens(shape.keys)
    settings = AttentionSettings(CPU, "bfloat16" if precision == torch.bfloat16 else "float32")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        found = attend_by_shape(settings, query, key, value)
        fused = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    exact = torch.nn.functional.scaled_dot_product_attention(query.double(), key.double(), value.double())
    assert found.dtype == precision
    error, of_fused = ((each.double() - exact).abs().max() for each in (found, fused))
    assert error < (1e-5 if precision == torch.float32 else 1.01 * of_fused)


@pytest.mark.usefixtures("kernel")
def test_tracking_equals_the_video_predictor(
    video_predictor: SAM2VideoPredictor, sam2_checkpoint: Path, frames: np.ndarray
) -> None:
    """The default, whichever kernel it takes: Dice of at least 0.999 (`assert_same`)."""
    model = loaded_sam2(sam2_checkpoint, attention="auto")
    images = resized(model, frames)
    for kind in ("points", "box", "several_slices"):
        given = VIDEO_PROMPTS[kind][0]
        (ours,) = tracked(model, frames, [given], False, batch_size=1)
        assert_same(ours, official_mask(video_predictor, images, given, False))


def test_scores_are_made_some_rows_at_a_time() -> None:
    """Seven queries to ten keys, with room for thirty scores: three, three, and one."""
    made: list[int] = []
    softmax = torch.softmax

    def noted(scores: torch.Tensor, dim: int) -> torch.Tensor:
        made.append(len(scores))
        return softmax(scores, dim)

    query, key = torch.randn(1, 1, 7, 4), torch.randn(1, 1, 10, 4)
    with mock.patch.object(kernels, "SCORES_AT_ONCE", 30), mock.patch.object(torch, "softmax", noted):
        found = kernels._by_rows(query, key, key)
    assert made == [3, 3, 1]
    assert torch.allclose(found, torch.nn.functional.scaled_dot_product_attention(query, key, key), atol=1e-6)
