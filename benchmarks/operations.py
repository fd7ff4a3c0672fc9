"""What a slice costs in every published size: python benchmarks/operations.py.

Operations as `torch.utils.flop_counter` counts them, a product and a sum as two, on tensors that have shapes only: the
image encoder, one prompt in the mask decoder, and one step of tracking (attention to a full memory, decoder, memory
encoder), the package's and ours with narrow values. docs/cluster.md computes GPU hours from them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from cases import PUBLISHED_SAM, PUBLISHED_SAM2
from torch.utils.flop_counter import FlopCounterMode

from volprompt.models.base import without_initialisation
from volprompt.models.kernels import AttentionSettings
from volprompt.models.sam import SamModel
from volprompt.models.sam2 import Sam2Model
from volprompt.models.sam2_parts import attention_of

SIDE = 64  # of the coarsest level at 1024 pixels


def counted(work: Callable[[], Any]) -> float:
    """Operations of some work, in 10^9."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 1e9


def sam(module: Any) -> tuple[float, float]:
    """Encoder and decoder."""
    prompts = module.prompt_encoder
    sparse, dense = torch.empty(1, 2, prompts.embed_dim), torch.empty(1, prompts.embed_dim, SIDE, SIDE)
    encode = counted(lambda: module.image_encoder(torch.empty(1, 3, 1024, 1024)))
    decode = counted(lambda: module.mask_decoder(dense, torch.empty_like(dense), sparse, dense, True))
    return encode, decode


def sam2(module: Any) -> tuple[float, float, float, float]:
    """Encoder, decoder, and a step of tracking by the package and by ours."""
    width, memory_width = module.hidden_dim, module.mem_dim
    coarse = torch.empty(1, width, SIDE, SIDE)
    fine = [torch.empty(1, width // 8, 4 * SIDE, 4 * SIDE), torch.empty(1, width // 4, 2 * SIDE, 2 * SIDE)]
    pointers = module.max_obj_ptrs_in_encoder * (width // memory_width)
    slots = module.num_maskmem * SIDE * SIDE + pointers
    tokens, memory = torch.empty(SIDE * SIDE, 1, width), torch.empty(slots, 1, memory_width)

    def decode() -> None:
        module._forward_sam_heads(coarse, high_res_features=fine, multimask_output=True)

    def remember() -> None:
        module.memory_encoder(coarse, torch.empty(1, 1, 16 * SIDE, 16 * SIDE), skip_mask_sigmoid=True)

    def attend() -> None:
        module.memory_attention(tokens, memory, tokens, memory, num_obj_ptr_tokens=pointers)

    settings = AttentionSettings(coarse.device, "bfloat16")
    narrow = attention_of(module.memory_attention, SIDE * SIDE, module.num_maskmem, settings)
    first = memory.transpose(0, 1)
    own = tokens.transpose(0, 1)
    encode = counted(lambda: module.forward_image(torch.empty(1, 3, 1024, 1024)))
    decoding = counted(decode)
    step = decoding + counted(remember)
    ours = counted(lambda: narrow(coarse, own, first, first, pointers))
    return encode, decoding, step + counted(attend), step + ours


def row(name: str, figures: Callable[[Any], Sequence[float]], module: torch.nn.Module) -> str:
    """A line of the table."""
    with torch.device("meta"):
        cells = [f"{each:.0f}" for each in figures(module.to("meta").eval().requires_grad_(False))]
    return " | ".join([f"| {name}", *cells, *[""] * (4 - len(cells))]) + " |"


def main() -> None:
    """Print the table."""
    print("| model | encoder, Gflop | decoder, Gflop | step of tracking, Gflop | with narrow values |")
    print("|---|---:|---:|---:|---:|")
    with without_initialisation():
        for name, architecture in PUBLISHED_SAM.items():
            print(row(name, sam, SamModel.build(architecture)))
        for name, architecture in PUBLISHED_SAM2.items():
            print(row(name, sam2, Sam2Model.build(architecture)))


if __name__ == "__main__":
    main()
