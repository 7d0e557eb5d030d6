"""`Generator`: Stable Diffusion taken apart into the five things it is.

model = xray.load("mini")
trace = model.generate("a red star above a blue moon", seed=7, record=["sampler/*"])
model.text, model.unet, model.encoder, model.decoder      # each callable alone
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xray import conv, forward, winograd
from xray.adapters import Own, load_lora, load_textual_inversion, unload
from xray.architecture import Architecture
from xray.batch import finite, numbers, prompt_tokens, token_coords
from xray.generation import generate
from xray.networks import Autoencoder, TextEncoder, UNet, set_numerics, variables
from xray.pixels import pixels_of, to_uint8
from xray.plan import plan
from xray.program import Part
from xray.replay import replay, resume
from xray.samplers import NoiseSchedule, initial_noise, sampler_named
from xray.tensor import DebugTensor

if TYPE_CHECKING:
    from PIL import Image

    from xray.tokenizer import Tokenizer

DECODED = 64 * 64  # places of latents at a time


class Generator:
    """A text-to-image latent diffusion model, opened.

    Usually made by `xray.load`. Its parts are attributes: ``tokenizer``, text → tokens
    (`xray.tokenizer.Tokenizer`), or None; and four networks, each callable alone on NumPy arrays
    and each with ``.record(patterns, *arrays)`` to see its sites:

    - ``text(ids)``: (n, length) int32 → (n, length, width) embedding.
    - ``unet(latent, timestep_embedding, context)``: → (n, h/8, w/8, 4); see `predict`.
    - ``encoder(pixels)``: (n, h, w, 3) in [-1, 1] → (n, h/8, w/8, 4), scaled.
    - ``decoder(latent)``: (n, h/8, w/8, 4), scaled → (n, h, w, 3), about [-1, 1].

    ``adapters`` lists what `load_lora` and `load_textual_inversion` have added.

    Args:
        name: what the model is called in traces.
        architecture: its sizes.
        tokenizer: or None where there is no vocabulary; prompts must then be embeddings.
        text, unet, encoder, decoder: the networks, from `xray.architecture` or, for KerasCV's own
            models, from `xray.networks`.
        digest: identifies the weights.
        sources: where each component came from: ``{"unet": {"source": …, "digest": …}, …}``.
        read: gives a variable's values again, see `xray.adapters.Own`.
        numerics: ``"reference"`` computes as the original Stable Diffusion, ``"keras_cv"`` as
            KerasCV, which differs in group-norm epsilon and the kind of GELU.
        spacing: of timesteps, by default.
        rgb_matrix: (5, 3), for showing latents as colour, or None.
        jit: compile with XLA.
        exact: every convolution by its definition, and none by `xray.winograd`.
        bring: puts the weights of a network, by name, into memory, and those of others out of it;
            None if all are there.
    """

    def __init__(
        self,
        name: str,
        architecture: Architecture,
        tokenizer: Tokenizer | None,
        text: TextEncoder,
        unet: UNet,
        encoder: Autoencoder,
        decoder: Autoencoder,
        *,
        digest: str,
        sources: dict[str, dict[str, str]] | None = None,
        read: Callable[[str, tuple[int, ...]], np.ndarray] | None = None,
        numerics: str = "reference",
        spacing: str = "leading",
        rgb_matrix: np.ndarray | None = None,
        jit: bool = False,
        exact: bool = False,
        bring: Callable[[str], None] | None = None,
    ):
        self.name, self.architecture, self.tokenizer = name, architecture, tokenizer
        self.digest, self.numerics, self.spacing = digest, numerics, spacing
        self.jit, self.exact, self.bring = jit, exact, bring or (lambda name: None)
        self.memory = "low" if bring else "fast"
        self.rgb_matrix, self.sources = rgb_matrix, sources or {}
        self.own, self.adapters = Own(digest, read), []
        self.schedule = NoiseSchedule(
            beta_start=architecture.beta_start, beta_end=architecture.beta_end
        )
        self.networks = {"text": text, "unet": unet, "encoder": encoder, "decoder": decoder}
        set_numerics(numerics, text, unet, encoder, decoder)
        self.text = self._part(
            "text",
            lambda tap, ids: forward.text_encoder(text, ids, tap),
            lambda ids: _check_ids(ids, text.embedding),
        )
        self.unet = self._part("unet", _unet_of(unet), _check_unet)
        self.encoder = self._part(
            "encoder",
            lambda tap, x: forward.encoder(encoder, x, tap),
            lambda pixels: _check_maps("pixels", pixels, 3),
        )
        self.decoder = self._part(
            "decoder",
            lambda tap, x: forward.decoder(decoder, x, tap),
            lambda latent: _check_maps("a latent", latent, 4),
        )

    def _part(self, name: str, network: Callable, check: Callable = lambda *arrays: None) -> Part:
        def run(tap: Any, *arrays: Any) -> Any:
            with forward.convolution(conv.conv2d if self.exact else winograd.conv2d):
                return network(tap, *arrays)

        return Part(name, run, jit=self.jit, before=lambda: self.bring(name), check=check)

    @property
    def mode(self) -> dict[str, bool]:
        """How it computes, on which the bits depend."""
        return {"jit": self.jit, "exact": self.exact}

    @property
    def parts(self) -> dict[str, Part]:
        return {p.name: p for p in (self.text, self.unet, self.encoder, self.decoder)}

    @property
    def parameters(self) -> int:
        """How many numbers the model has learned."""
        return sum(
            int(np.prod(v.shape))
            for name, net in self.networks.items()
            for v in variables(name, net).values()
        )

    def __repr__(self) -> str:
        return (
            f"Generator {self.name} ({self.parameters / 1e6:.1f} M parameters, "
            f"{self.architecture.size}×{self.architecture.size}, {self.numerics} numerics, "
            f"{'XLA, ' if self.jit else ''}{'exact, ' if self.exact else ''}"
            f"{'one network in memory at a time, ' if self.memory == 'low' else ''}"
            f"weights {self.digest[:12]}"
            f"{''.join(f', {a.kind} {a.token or a.source}' for a in self.adapters)})"
        )

    def check_whole(self) -> None:
        """Refuse what needs all weights at once of a model that has one network's in memory."""
        if self.memory == "low":
            raise ValueError(
                'this model was opened with memory="low", which keeps one network in memory at a '
                'time, and this needs all: open it with memory="fast"'
            )

    # ------------------------------------------------------------------------------ the whole

    generate = generate
    plan = plan
    replay = replay
    resume = resume
    load_lora = load_lora
    load_textual_inversion = load_textual_inversion
    unload = unload

    # ------------------------------------------------------------------------------ the parts

    def embed(self, prompt: str | Sequence[str], *, truncate: bool = False) -> DebugTensor:
        """The text encoder's output: (image, token, channel).

        Raises:
            TypeError: `prompt` is neither text nor a list of texts.
            PromptTooLong: by how many tokens, unless it may be cut.

        Example:
            >>> model.embed("a red star").word("star").norm("channel")
        """
        prompts = list(prompt) if isinstance(prompt, (list, tuple)) else [prompt]
        if not prompts or not all(isinstance(p, str) for p in prompts):
            raise TypeError(f"a prompt to embed is text, or a list of texts, got {prompt!r}")
        tokens = [prompt_tokens(self, p, truncate) for p in prompts]
        values = self.text(np.array([[t.id for t in row] for row in tokens], np.int32))
        return self._tensor(
            "text/out",
            values,
            ("image", "token", "channel"),
            token_coords(tokens[0]) if len(prompts) == 1 else {},
            prompt=prompts[0] if len(prompts) == 1 else prompts,
        )

    def predict(self, latent: Any, timestep: float, context: Any) -> np.ndarray:
        """The U-Net alone: the noise it sees.

        Args:
            latent: (n, h/8, w/8, 4), variance preserving.
            timestep: 0 … 999, may be fractional.
            context: (n, length, width), from `embed`.

        Returns:
            (n, h/8, w/8, 4) float32, the noise, whatever the network predicts in its place.

        Raises:
            ValueError: the timestep is out of range; latent and context do not fit the model or
                each other, or hold NaN.
        """
        last = len(self.schedule.alphas_cumprod) - 1
        if not 0 <= finite("timestep", timestep) <= last:
            raise ValueError(f"timestep must be 0 … {last}, got {timestep}")
        latent, context = _latent(latent), numbers("the context", _float32(context))
        count, width = len(latent), self.architecture.text_width
        _check_latent(latent)
        if context.ndim != 3 or (len(context), context.shape[-1]) != (count, width):
            raise ValueError(
                f"context must be ({count}, length, {width}) for {count} latents, "
                f"got {context.shape}"
            )
        embedding = np.tile(self.timestep_embedding(timestep), (len(latent), 1))
        output = self.unet(latent, embedding, context)
        return self.schedule.to_noise(self.architecture.prediction, output, latent, timestep)

    def encode(self, image: Any, *, sample_seed: int | None = None) -> DebugTensor:
        """Pictures → scaled latents (image, y, x, channel): the mean of the posterior, or a sample.

        Args:
            image: a PIL image, a uint8 array (h, w, 3) or (n, h, w, 3), or such floats in [-1, 1];
                height and width multiples of 8.
            sample_seed: draw from the posterior, as Stable Diffusion's training does; every
                picture of a batch with the same noise, so that it comes out as it would alone.

        Example:
            >>> model.encode(photo, sample_seed=3) - model.encode(photo)
        """
        if sample_seed is None:
            return self._tensor("encoder/out", self.encoder(pixels_of(image)))
        mean, std = self.posterior(image)
        sample = mean + std * initial_noise(sample_seed, mean.shape[1:])
        return self._tensor("encoder/out", sample.values)

    def posterior(self, image: Any) -> tuple[DebugTensor, DebugTensor]:
        """What the encoder says of pictures: a normal distribution for each number of the latent.

        Args:
            image: as for `encode`.

        Returns:
            Mean and standard deviation, both (image, y, x, channel) and scaled as latents are.

        Reference:
            Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models",
            appendix G, whose code keeps the log variance within −30 … 20.
        """
        net = self.networks["encoder"]
        _, sites = self.encoder.record("encoder/moments", pixels_of(image))
        mean, log_variance = np.split(sites["encoder/moments"], 2, axis=-1)
        std = np.exp(np.float32(0.5) * np.clip(log_variance, -30, 20))
        scale = np.float32(net.scaling_factor)
        return self._tensor("encoder/out", mean * scale), self._tensor(
            "encoder/moments", std * scale
        )

    def decode(self, latent: Any) -> list[Image.Image]:
        """Scaled latents (…, y, x, 4) → one PIL image for each.

        Raises:
            ValueError: it is no latent, or holds NaN.
            FloatingPointError: the decoder made NaN or infinity of it.

        Example:
            >>> model.decode(trace["sampler/denoised"].sel(step=12))[0]
        """
        from PIL import Image

        values = _latent(latent)
        return [Image.fromarray(p) for p in to_uint8(self.pixels(values))]

    def pixels(self, latents: np.ndarray) -> np.ndarray:
        """The decoder's output (n, y, x, 3) for latents (…, y, x, 4), some of them at a time.

        Together those make one picture of 512×512 at most, or are one: the decoder's feature maps
        are hundreds of times as large as a latent.
        """
        latents = latents.reshape(-1, *latents.shape[-3:])
        some = max(1, DECODED // math.prod(latents.shape[1:3]))
        parts = [self.decoder(latents[i : i + some]) for i in range(0, len(latents), some)]
        return np.concatenate(parts)

    def noised(
        self,
        image: Any,
        strength: float,
        *,
        steps: int = 25,
        seed: int = 0,
        sampler: str = "ddim",
        spacing: str | None = None,
    ) -> tuple[np.ndarray, int]:
        """A picture with as much noise as a run has left at some step, to start from.

        Args:
            image: as for `encode`.
            strength: share of the run that is left to do, above 0 and up to 1, which leaves
                almost nothing of the picture.
            steps, sampler, spacing: of the run that will follow.
            seed: of the noise.

        Returns:
            ``(latent, start_step)`` for ``generate(latent=…, start_step=…, steps=steps)``.

        Reference:
            Meng et al. 2022, "SDEdit".

        Example:
            >>> latent, start = model.noised(photo, 0.6)
            >>> model.generate("a green fish", latent=latent, start_step=start)
        """
        if not 0 < strength <= 1:
            raise ValueError(f"strength must be above 0 and at most 1, got {strength}")
        start = steps - max(1, round(strength * steps))
        visited = self.timesteps(steps, sampler, spacing)
        x0 = self.encode(image).values
        noise = np.stack([initial_noise(seed, x0.shape[1:])] * len(x0))
        return self.schedule.add_noise(x0, noise, visited[start]), start

    def timesteps(
        self, steps: int, sampler: str = "ddim", spacing: str | None = None
    ) -> np.ndarray:
        """Which a run visits, noisiest first, and where it ends: (steps + 1,) float64.

        Args:
            steps, sampler, spacing: as for `generate`.

        Example:
            >>> model.timesteps(4)
            array([751., 501., 251.,   1.,   0.])
        """
        return sampler_named(sampler).timesteps(steps, spacing or self.spacing, self.schedule)

    def timestep_embedding(self, timestep: float) -> np.ndarray:
        """What the U-Net is told of the time: (width,) float32."""
        return forward.timestep_embedding(timestep, self.architecture.widths[0])

    def _tensor(
        self,
        site: str,
        values: np.ndarray,
        dims: tuple[str, ...] = ("image", "y", "x", "channel"),
        coords: dict[str, Any] | None = None,
        prompt: Any = "",
    ) -> DebugTensor:
        return DebugTensor(
            values,
            dims=dims,
            coords=coords,
            site=site,
            model=self.name,
            prompt=prompt,
            rgb_matrix=self.rgb_matrix,
        )


def _unet_of(net: UNet) -> Callable:
    """The U-Net on both guidance branches at once: the latent is one, the contexts are several.

    Called alone it knows of no branches: each of several contexts is an image of its own.
    """

    def run(tap: Any, latent: Any, embedding: Any, context: Any) -> Any:
        import tensorflow as tf

        images = context.shape[0] // len(tap.branches)
        count = images // latent.shape[0]
        latent, embedding = (tf.concat([x] * count, axis=0) for x in (latent, embedding))
        return forward.unet(net, latent, embedding, context, tap)

    return run


def _check_ids(ids: Any, embedding: Any) -> None:
    words = embedding.token_embedding.embeddings.shape[0]
    longest = embedding.position_embedding.embeddings.shape[0]
    ids = np.asarray(ids)
    if ids.ndim != 2 or not 0 < ids.shape[1] <= longest or not len(ids):
        raise ValueError(f"token ids must be (n, 1 … {longest}), got shape {ids.shape}")
    if wrong := [
        i for i in ids.ravel().tolist() if not float(i).is_integer() or not 0 <= i < words
    ]:
        raise ValueError(f"token ids are whole numbers 0 … {words - 1}, got {wrong[0]}")


def _check_unet(latent: Any, embedding: Any, context: Any) -> None:
    _check_latent(latent)
    branches, left = divmod(len(context), len(latent))
    if left or not branches:
        raise ValueError(
            f"{len(latent)} latents need as many contexts, or those of several branches one after "
            f"the other, got {len(context)}"
        )


def _check_latent(latent: Any) -> None:
    """As the U-Net takes it, which halves its sides three times."""
    shape = np.shape(latent)
    if len(shape) != 4 or shape[-1] != 4 or any(side % 8 for side in shape[1:3]):
        raise ValueError(f"latent must be (n, y, x, 4), y and x multiples of 8, got {shape}")


def _check_maps(what: str, maps: Any, channels: int) -> None:
    shape = np.shape(maps)
    if len(shape) != 4 or shape[-1] != channels:
        raise ValueError(f"{what} must be (n, y, x, {channels}) here, got shape {shape}")


def _float32(values: Any) -> np.ndarray:
    return np.asarray(values, np.float32)


def _latent(values: Any) -> np.ndarray:
    values = _float32(values)
    if values.ndim < 3 or values.shape[-1] != 4:
        raise ValueError(f"a latent is (…, y, x, 4), got shape {values.shape}")
    return numbers("the latent", values)
