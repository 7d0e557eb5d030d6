"""KerasCV's own model objects, opened."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from xray.checkpoints.checkpoint import COMPONENTS
from xray.environment import check_environment

if TYPE_CHECKING:
    from xray.generator import Generator
    from xray.tokenizer import Tokenizer


def from_keras_cv(
    stock: Any, *, tokenizer: Tokenizer | None = None, jit: bool = False, exact: bool = False
) -> Generator:
    """Open KerasCV's own ``StableDiffusion`` or ``StableDiffusionV2``, whatever weights it holds.

    The layers are shared, not copied, and used with KerasCV's own numerics and spacing, so that
    both give the same pictures. Parts that KerasCV has not built yet are built now, for which it
    downloads their weights.

    Args:
        stock: the KerasCV model.
        tokenizer: in place of KerasCV's.
        jit, exact: as for `xray.load`.

    Example:
        >>> model = from_keras_cv(keras_cv.models.StableDiffusion(512, 512))
    """
    check_environment()
    from xray import networks as n
    from xray.architecture import SD1, SD2
    from xray.generator import Generator
    from xray.tokenizer import Tokenizer

    name = type(stock).__name__
    parts = {
        "text": n.read_text_encoder(stock.text_encoder),
        "unet": n.read_unet(stock.diffusion_model),
        "encoder": n.read_encoder(stock.image_encoder),
        "decoder": n.read_decoder(stock.decoder),
    }
    whole = hashlib.sha256()
    for part, net in parts.items():
        for variable in n.variables(part, net).values():
            whole.update(variable.numpy())
    digest = whole.hexdigest()
    return Generator(
        name,
        SD2 if name == "StableDiffusionV2" else SD1,
        tokenizer or Tokenizer(list(stock.tokenizer.bpe_ranks), pad=49407),
        **parts,
        digest=digest,
        sources={part: {"source": f"keras_cv {name}", "digest": digest} for part in COMPONENTS},
        numerics="keras_cv",
        spacing="linspace",
        jit=jit,
        exact=exact,
    )
