"""The same weights here and in diffusers and transformers: the same embeddings, noise, pictures.

Small models of both versions, with random weights, made and saved by those libraries.
"""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
from ldm_layout import ldm_state
from safetensors.numpy import load_file, save_file
from test_checkpoint_forms import LDM_1, LDM_2

import xray
from xray.checkpoints import building, export_diffusers
from xray.checkpoints.vocabulary import save_vocabulary

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch = pytest.importorskip("torch", reason="needs the extra parity: torch")
diffusers = pytest.importorskip("diffusers", reason="needs the extra parity: diffusers")
transformers = pytest.importorskip("transformers", reason="needs the extra parity: transformers")

pytestmark = pytest.mark.slow

PROMPT, NEGATIVE = "a red star above a blue moon", "a big fish"
VERSIONS = {
    "1.x": {
        "text": {"hidden_act": "quick_gelu", "num_hidden_layers": 3},
        "unet": {"attention_head_dim": 4},
        "scheduler": {"prediction_type": "epsilon"},
        "pad": "<|endoftext|>",
    },
    "2.x": {
        "text": {"hidden_act": "gelu", "num_hidden_layers": 2},
        "unet": {"attention_head_dim": [2, 4, 4, 8], "use_linear_projection": True},
        "scheduler": {"prediction_type": "v_prediction"},
        "pad": "!",
    },
}


def error(ours, theirs):
    """max|a − b| / std(b), the project's measure; theirs may be (n, channel, y, x)."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape
    return np.abs(ours - theirs).max() / theirs.std()


def last(array):
    """(n, channel, y, x) → (n, y, x, channel)."""
    return np.moveaxis(np.asarray(array), 1, -1)


def first(array):
    """(n, y, x, channel) → a tensor (n, channel, y, x)."""
    return torch.from_numpy(np.moveaxis(np.asarray(array, np.float32), -1, 1).copy())


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def make_pipeline(version, tokenizer, folder):
    """A pipeline of the real classes at small widths, with no weight left at zero or one."""
    settings = VERSIONS[version]
    save_vocabulary(tokenizer, folder / "vocabulary")
    theirs = transformers.CLIPTokenizer.from_pretrained(
        folder / "vocabulary", pad_token=settings["pad"]
    )
    torch.manual_seed(0)
    text = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=len(tokenizer.vocabulary),
            max_position_embeddings=tokenizer.length,
            hidden_size=48,
            intermediate_size=192,
            num_attention_heads=4,
            bos_token_id=tokenizer.start,
            eos_token_id=tokenizer.end,
            **settings["text"],
        )
    )
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 48, 64, 64),
        layers_per_block=2,
        norm_num_groups=16,
        cross_attention_dim=48,
        **settings["unet"],
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=(16, 16, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=8,
        scaling_factor=0.5,
    )
    for model in (text, unet, vae):
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.data += 0.1 * torch.randn_like(parameter)
    scheduler = diffusers.DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        **settings["scheduler"],
    )
    pipeline = diffusers.StableDiffusionPipeline(
        vae=vae,
        text_encoder=text.eval(),
        tokenizer=theirs,
        unet=unet.eval(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder / "model")
    return pipeline


@pytest.fixture(scope="module", params=VERSIONS)
def both(request, tokenizer, tmp_path_factory):
    """The pipeline, and ours from the folder that it wrote."""
    folder = tmp_path_factory.mktemp("pipeline")
    pipeline = make_pipeline(request.param, tokenizer, folder)
    model = xray.load(folder / "model")
    assert model.numerics == "reference"
    with torch.no_grad():
        yield pipeline, model


def test_the_configuration_is_read(both):
    pipeline, model = both
    arch, version_2 = model.architecture, pipeline.unet.config.use_linear_projection
    assert arch.widths == (32, 48, 64, 64) and arch.blocks == 2 and arch.groups == 16
    assert arch.heads == ((2, 4, 4, 8) if version_2 else (4, 4, 4, 4))
    assert arch.linear_projections == version_2
    assert arch.text_activation == ("gelu" if version_2 else "quick_gelu")
    assert arch.prediction == ("v" if version_2 else "epsilon")
    assert arch.scaling_factor == 0.5 and model.spacing == "leading" and arch.size == 64


@pytest.mark.parametrize("prompt", [PROMPT, "", "  A   fish's big STARS!! 2024 "])
def test_prompts_are_the_same_tokens_padding_too(both, prompt):
    pipeline, model = both
    theirs = pipeline.tokenizer(prompt, padding="max_length", max_length=model.tokenizer.length)
    assert model.tokenizer.ids(prompt).tolist() == theirs["input_ids"]


def test_the_text_encoder(both):
    pipeline, model = both
    ids = np.stack([model.tokenizer.ids(prompt) for prompt in (PROMPT, NEGATIVE, "")])
    theirs = pipeline.text_encoder(torch.from_numpy(ids.astype(np.int64)))[0]
    found = error(model.text(ids), theirs)
    print(f"\ntext encoder: {found:.1e}")
    assert found < 1e-4


@pytest.mark.parametrize("timestep", [981, 1])
def test_the_unet(both, timestep):
    pipeline, model = both
    latent, context = normal(1, 2, 8, 16, 4), normal(2, 2, model.tokenizer.length, 48)
    theirs = pipeline.unet(first(latent), timestep, torch.from_numpy(context)).sample
    embedding = np.tile(model.timestep_embedding(timestep), (2, 1))
    found = error(model.unet(latent, embedding, context), last(theirs))
    print(f"\nU-Net at {timestep}: {found:.1e}")
    assert found < 1e-4


def test_the_autoencoder(both):
    pipeline, model = both
    pixels, latent = np.tanh(normal(3, 1, 64, 128, 3)), normal(4, 1, 8, 16, 4)
    factor = pipeline.vae.config.scaling_factor
    means = pipeline.vae.encode(first(pixels)).latent_dist.mean * factor
    picture = pipeline.vae.decode(first(latent) / factor).sample
    errors = error(model.encoder(pixels), last(means)), error(model.decoder(latent), last(picture))
    print(f"\nencoder: {errors[0]:.1e}, decoder: {errors[1]:.1e}")
    assert max(errors) < 1e-4


def guided_run(pipeline, model):
    """25 guided steps of DDIM from the same noise: our error, and how far apart the pictures."""
    noise = normal(5, 1, 8, 16, 4)
    run = {"negative_prompt": NEGATIVE, "guidance_scale": 5.0, "num_inference_steps": 25}
    theirs = pipeline(PROMPT, latents=first(noise), output_type="latent", **run).images
    ours = model.generate(PROMPT, negative=NEGATIVE, guidance=5.0, steps=25, latent=noise)
    picture = pipeline.vae.decode(theirs / pipeline.vae.config.scaling_factor).sample
    picture = np.clip(last(picture) * 127.5 + 127.5, 0, 255).round()
    return error(ours["sampler/out"], last(theirs)), np.abs(ours["image"].values - picture).max()


def test_a_guided_run(both):
    latents, pictures = guided_run(*both)
    print(f"\nlatents after 25 steps: {latents:.1e}, pictures: {pictures:.0f} of 255")
    assert latents < 1e-3 and pictures <= 1


def test_what_is_exported_opens_in_diffusers(both, tmp_path):
    """With the weights, prompts, sizes and sampler that make the same pictures."""
    pipeline, model = both
    export_diffusers(model, tmp_path / "model", shard_bytes=500_000)
    assert len(list((tmp_path / "model" / "unet").glob("*-of-*.safetensors"))) > 1
    opened = diffusers.StableDiffusionPipeline.from_pretrained(
        tmp_path / "model", safety_checker=None
    )
    opened.set_progress_bar_config(disable=True)
    for part in ("text_encoder", "unet", "vae"):
        theirs, own = getattr(opened, part).state_dict(), getattr(pipeline, part).state_dict()
        assert theirs.keys() == own.keys()
        for name, values in own.items():
            torch.testing.assert_close(theirs[name], values, rtol=0, atol=0)
    settings, own = (
        {name: value for name, value in p.scheduler.config.items() if not name.startswith("_")}
        for p in (opened, pipeline)
    )
    assert settings == own
    ids = opened.tokenizer(PROMPT, padding="max_length", max_length=model.tokenizer.length)
    assert ids["input_ids"] == model.tokenizer.ids(PROMPT).tolist()
    assert opened.tokenizer.model_max_length == model.tokenizer.length


def test_the_miniature_makes_the_same_picture_in_diffusers(tmp_path):
    model = xray.load("mini")
    export_diffusers(model, tmp_path / "mini")
    opened = diffusers.StableDiffusionPipeline.from_pretrained(
        tmp_path / "mini", safety_checker=None
    )
    opened.set_progress_bar_config(disable=True)
    noise = normal(7, 1, 16, 16, 4)
    run = {"guidance_scale": 5.0, "num_inference_steps": 25, "latents": first(noise)}
    with torch.no_grad():
        theirs = opened(PROMPT, output_type="np", **run).images
    ours = model.generate(PROMPT, steps=25, guidance=5.0, latent=noise)["image"].values
    assert np.abs(ours - np.round(255 * theirs)).max() <= 1


@pytest.mark.parametrize("arch", [LDM_1, LDM_2], ids=["1.x", "2.x"])
def test_a_single_file_is_the_same_model_to_diffusers(arch, tokenizer, tmp_path):
    """Its own reader of single files finds the weights where ours does."""
    arch = replace(arch, vocab_size=len(tokenizer.vocabulary))
    model = building.random_model("single", arch, 0, tokenizer)
    path = tmp_path / "single.safetensors"
    save_file(ldm_state(model.networks, openclip=arch.linear_projections), path)
    export_diffusers(model, tmp_path / "folder")
    opened = diffusers.StableDiffusionPipeline.from_single_file(
        path, config=str(tmp_path / "folder"), local_files_only=True
    )
    for part, file in (
        ("unet", "unet/diffusion_pytorch_model"),
        ("vae", "vae/diffusion_pytorch_model"),
        ("text_encoder", "text_encoder/model"),
    ):
        expected = load_file(tmp_path / "folder" / f"{file}.safetensors")
        found = getattr(opened, part).state_dict()
        assert len(found) == len(expected)
        for name, values in expected.items():
            name = name if name in found else name.removeprefix("text_model.")
            np.testing.assert_array_equal(found[name].numpy(), values, err_msg=name)
