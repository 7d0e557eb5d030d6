"""How large the miniature is, and how it was chosen.

Stable Diffusion's topology with about 9.5 M parameters, 19 MB in float16. One residual block a
level down and two up (Stable Diffusion has two and three), because at equal time a wider network
with fewer blocks learned more; eight groups, because 32 groups of 48 channels would be close to
instance normalisation.
"""

from xray.architecture import Architecture

TEXT_LENGTH = 24
MERGES = 360

MINI = Architecture(
    vocab_size=1,  # set from the trained tokenizer
    text_length=TEXT_LENGTH,
    text_width=128,
    text_heads=4,
    text_layers=3,
    widths=(48, 96, 128, 128),
    heads=(4, 4, 4, 4),
    blocks=1,
    groups=8,
    ae_widths=(16, 32, 64, 96),
    ae_blocks=1,
    ae_groups=8,
    scaling_factor=1.0,  # set from the trained autoencoder
    prediction="v",
    size=128,
)
