"""Every form of weights gives the same model: to the bit, tensor by tensor."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ldm_layout import as_converted, ldm_state, training_leftovers
from loading import all_variables, assert_same_weights, into, weights_of
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

import xray
from xray import cli, memory
from xray.architecture import Architecture
from xray.checkpoints import building, export_diffusers, outline, save
from xray.sitelist import sites_of
from xray.tokenizer import Tokenizer

PROMPT = "a red star above a moon"
TOKENS = 538  # of the tests' vocabulary


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """The tiny model as a diffusers folder."""
    folder = tmp_path_factory.mktemp("diffusers") / "tiny"
    export_diffusers(model, folder)
    return folder


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def rewrite(path, change):
    """A safetensors file with other tensors: ``change(tensors)`` gives or edits them."""
    tensors = load_file(path)
    tensors = change(tensors) or tensors
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, path)


def edit_json(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


# --- diffusers folders -----------------------------------------------------------------------


def test_a_folder_is_the_same_model_to_the_bit(model, folder, spare):
    with into(spare):
        loaded = xray.load(folder)
    assert loaded.architecture == model.architecture
    assert (loaded.spacing, loaded.numerics, loaded.name) == ("leading", "reference", "tiny")
    assert_same_weights(weights_of(loaded), weights_of(model))
    for text in (PROMPT, "", "stargazers"):
        assert loaded.tokenizer.tokens(text) == model.tokenizer.tokens(text)
    run = {"steps": 2, "seed": 3, "record": ["sampler/*", "text/out"]}
    ours, theirs = model.generate(PROMPT, **run), loaded.generate(PROMPT, **run)
    assert all(row.equal for row in xray.diff(ours, theirs).rows)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_shards_and_half_precision(model, spare, tmp_path, dtype):
    export_diffusers(model, tmp_path / "tiny", dtype=dtype, shard_bytes=100_000)
    shards = sorted((tmp_path / "tiny" / "unet").glob("*.safetensors"))
    assert len(shards) > 2 and all(s.stat().st_size < 150_000 for s in shards)
    with into(spare):
        loaded = xray.load(tmp_path / "tiny")
    expected = {k: v.astype(dtype).astype(np.float32) for k, v in weights_of(model).items()}
    assert_same_weights(weights_of(loaded), expected)


def test_weights_in_half_precision_can_stay_so_in_memory(model, spare, tmp_path):
    export_diffusers(model, tmp_path / "tiny", dtype="float16")
    half = xray.load(tmp_path / "tiny", dtype="float16")
    assert {str(v.dtype) for v in all_variables(half.networks).values()} == {"float16"}
    expected = {k: v.astype(np.float16) for k, v in weights_of(model).items()}
    assert_same_weights(weights_of(half), expected)
    with into(spare):
        whole = xray.load(tmp_path / "tiny")
    # The same numbers, in half of the memory: what is computed of them is the same to the bit.
    assert half.digest == whole.digest
    run = {"steps": 2, "seed": 3, "record": ["sampler/*", "text/out", "unet/mid/attn.0/out"]}
    assert all(
        r.equal for r in xray.diff(half.generate(PROMPT, **run), whole.generate(PROMPT, **run)).rows
    )
    # LoRA and learned words are merged into what is kept, and come off to the bit.
    lora, key = tmp_path / "lora.safetensors", "unet/mid/attn.0/cross/to_k/kernel"
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
    parts = {f"{name}.lora_down.weight": (1, 16), f"{name}.lora_up.weight": (16, 1)}
    save_file({part: np.ones(shape, np.float32) for part, shape in parts.items()}, lora)
    save_file({"<toy>": np.ones((2, 16), np.float32)}, tmp_path / "toy.safetensors")
    half.load_lora(lora, 0.5)
    half.load_textual_inversion(tmp_path / "toy.safetensors")
    found = weights_of(half)
    np.testing.assert_array_equal(
        found[key], (expected[key].astype(np.float32) + 0.5).astype(np.float16)
    )
    assert {v.dtype for v in found.values()} == {np.dtype(np.float16)}
    for adapter in list(half.adapters):
        half.unload(adapter)
    assert_same_weights(weights_of(half), expected)


def test_what_is_rounded_to_half_precision_says_so(folder, copy, tiny, model):
    halves = building.build(tiny, lambda shape: np.zeros(shape, np.float16), "float16")
    with into(halves):
        rounded, plain = (
            xray.load(folder, dtype="float16"),
            xray.checkpoints.open_checkpoint(folder),
        )
    assert rounded.digest != plain.digest
    key = "text/layer.1/fc1/kernel"
    np.testing.assert_array_equal(weights_of(rounded)[key], weights_of(model)[key].astype("f2"))
    path, name = copy / "text_encoder" / "model.safetensors", "text_model.final_layer_norm.bias"
    rewrite(path, lambda held: {**held, name: held[name] + np.float32(1e5)})
    with (
        into(halves),
        pytest.raises(ValueError, match="text/norm/beta has numbers that are too large"),
    ):
        xray.load(copy, dtype="float16")
    with pytest.raises(ValueError, match="dtype must be 'float32' or 'float16', got 'int8'"):
        xray.load(folder, dtype="int8")


@pytest.mark.parametrize("kept", ["float32", "float64", "bfloat16"])
def test_numbers_too_large_for_half_precision_are_refused_in_every_form(kept):
    import ml_dtypes  # noqa: F401  tells NumPy of bfloat16

    large = np.array([1, -1e30]).astype(kept)
    with pytest.raises(ValueError, match="x has numbers that are too large for float16.*float32"):
        building.cast("x", large, "float16")
    np.testing.assert_array_equal(building.cast("x", large, "float32"), large.astype("float32"))


@pytest.mark.parametrize("write", [export_diffusers, save])
def test_numbers_too_large_for_half_precision_are_not_written_as_infinite(model, tmp_path, write):
    bias = all_variables(model.networks)["unet/conv_in/bias"]
    before = bias.numpy()
    bias.assign(before + np.float32(1e5))
    try:
        with pytest.raises(ValueError, match="unet/conv_in/bias has numbers that are too large"):
            write(model, tmp_path / "half", dtype="float16")
        assert not list(tmp_path.rglob("*.safetensors"))
    finally:
        bias.assign(before)


def test_brain_floats_are_read(model, copy, spare):
    import ml_dtypes

    rewrite(
        copy / "unet" / "diffusion_pytorch_model.safetensors",
        lambda held: {k: v.astype(ml_dtypes.bfloat16) for k, v in held.items()},
    )
    with into(spare):
        loaded = xray.load(copy)
    key = "unet/mid/res.0/conv1/kernel"
    expected = weights_of(model)[key].astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(weights_of(loaded)[key], expected)


def fuse(held, parts, fused):
    """Projections of one attention in one tensor, as diffusers' fuse_qkv_projections leaves them"""
    found = dict(held)
    for name in held:
        if f".{parts[0]}." in name:
            names = [name.replace(f".{parts[0]}.", f".{part}.") for part in parts]
            found[name.replace(parts[0], fused)] = np.concatenate([found.pop(n) for n in names])
    return found


def old_autoencoder(held):
    """The names that attention had in diffusers before 0.18, and its 1×1 convolutions before."""
    renamed = {}
    for name, value in held.items():
        for new, old in (
            (".to_q.", ".query."),
            (".to_k.", ".key."),
            (".to_v.", ".value."),
            (".to_out.0.", ".proj_attn."),
        ):
            if new in name:
                name = name.replace(new, old)
                value = value[:, :, None, None] if value.ndim == 2 else value
        renamed[name] = value
    assert renamed.keys() != held.keys()
    return renamed


def without_prefix(held):
    """As transformers 5 writes a text encoder."""
    return {name.removeprefix("text_model."): value for name, value in held.items()}


def with_unused(held):
    """As transformers 4 did, with projection."""
    unused = {
        "text_model.embeddings.position_ids": np.arange(20)[None],
        "text_projection.weight": np.eye(16, dtype=np.float32),
    }
    return held | unused


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("vae/diffusion_pytorch_model", old_autoencoder),
        ("vae/diffusion_pytorch_model", lambda h: fuse(h, ("to_q", "to_k", "to_v"), "to_qkv")),
        ("unet/diffusion_pytorch_model", lambda h: fuse(h, ("to_k", "to_v"), "to_kv")),
        (
            "unet/diffusion_pytorch_model",
            lambda h: {
                k: v[..., 0, 0] if "proj_in" in k and v.ndim == 4 else v for k, v in h.items()
            },
        ),
        ("text_encoder/model", without_prefix),
        ("text_encoder/model", with_unused),
    ],
    ids=["old names", "fused", "half fused", "matrices", "short names", "unused"],
)
def test_other_ways_to_write_the_same(model, copy, spare, file, change):
    rewrite(copy / f"{file}.safetensors", change)
    with into(spare):
        loaded = xray.load(copy)
    assert_same_weights(weights_of(loaded), weights_of(model))


@pytest.fixture
def by_variant(copy):
    for place in ("unet", "vae", "text_encoder"):
        for path in (copy / place).glob("*.safetensors"):
            path.rename(path.with_suffix(".fp16.safetensors"))
    return copy


def test_a_variant_is_found_by_its_name(model, by_variant, spare):
    for chosen in (None, "fp16"):
        with into(spare):
            loaded = xray.load(by_variant, variant=chosen)
        assert_same_weights(weights_of(loaded), weights_of(model))
    with pytest.raises(ValueError, match=r"no weights of variant 'ema'.*model\.fp16\.safetensors"):
        xray.load(by_variant, variant="ema")
    with pytest.raises(ValueError, match="variant='fp16' is for diffusers folders, and mini"):
        xray.load("mini", variant="fp16")


def test_a_variant_in_shards_is_found_by_its_name(model, spare, tmp_path):
    folder = tmp_path / "tiny"
    export_diffusers(model, folder, shard_bytes=100_000)
    # As diffusers and transformers name them: STEM.fp16-00001-of-00006.safetensors
    for place in ("unet", "vae", "text_encoder"):
        for path in sorted((folder / place).glob("*.safetensors")):
            stem, *part = path.stem.split("-", 1)
            path.rename(path.with_name("-".join([f"{stem}.fp16", *part]) + ".safetensors"))
        for path in (folder / place).glob("*.index.json"):
            index = json.loads(path.read_text())
            shards = {k: v.replace("-", ".fp16-", 1) for k, v in index["weight_map"].items()}
            path.unlink()
            index = json.dumps({**index, "weight_map": shards})
            path.with_name(path.name.replace(".json", ".fp16.json")).write_text(index)
    assert (folder / "unet" / "diffusion_pytorch_model.safetensors.index.fp16.json").is_file()
    with into(spare):
        loaded = xray.load(folder)
    assert_same_weights(weights_of(loaded), weights_of(model))


@pytest.mark.parametrize(
    ("scheduler", "spacing"),
    [  # defaults of diffusers 0.42
        ("DDIMScheduler", "leading"),
        ("DDPMScheduler", "leading"),
        ("PNDMScheduler", "leading"),
        ("LCMScheduler", "leading"),
        ("EulerDiscreteScheduler", "linspace"),
        ("EulerAncestralDiscreteScheduler", "linspace"),
        ("LMSDiscreteScheduler", "linspace"),
        ("HeunDiscreteScheduler", "linspace"),
        ("DPMSolverMultistepScheduler", "linspace"),
        ("UniPCMultistepScheduler", "linspace"),
        (None, "leading"),
    ],
)
def test_spacing_that_is_not_written_is_the_schedulers_own(copy, scheduler, spacing):
    edit_json(
        copy / "scheduler" / "scheduler_config.json", _class_name=scheduler, timestep_spacing=None
    )
    assert xray.checkpoints.open_checkpoint(copy).spacing == spacing


def test_the_noise_schedule_is_read(copy, spare):
    path = copy / "scheduler" / "scheduler_config.json"
    edit_json(
        path,
        prediction_type="v_prediction",
        beta_start=0.001,
        beta_end=0.01,
        timestep_spacing="trailing",
    )
    checkpoint = xray.checkpoints.open_checkpoint(copy)
    assert checkpoint.spacing == "trailing" and checkpoint.architecture.prediction == "v"
    with into(spare):
        schedule = xray.load(copy).schedule
    betas = np.linspace(0.001**0.5, 0.01**0.5, 1000) ** 2
    np.testing.assert_allclose(schedule.alphas_cumprod, np.cumprod(1 - betas), rtol=1e-12)


@pytest.mark.parametrize("layout", ["vocab.json", "tokenizer.json"])
def test_version_2_pads_with_its_own_token(copy, tokenizer, layout):
    place = copy / "tokenizer"
    edit_json(place / "special_tokens_map.json", pad_token="!")
    if layout == "tokenizer.json":
        vocabulary = json.loads((place / "vocab.json").read_text("utf-8"))
        merges = [" ".join(pair) for pair in tokenizer.merges]
        both = {"model": {"type": "BPE", "vocab": vocabulary, "merges": merges}}
        (place / "tokenizer.json").write_text(json.dumps(both))
        (place / "vocab.json").unlink()
    read = xray.checkpoints.open_checkpoint(copy).tokenizer
    assert read.pad == 0 and read.ids(PROMPT)[-1] == 0
    np.testing.assert_array_equal(read.ids(PROMPT)[:6], tokenizer.ids(PROMPT)[:6])
    # What transformers wrote later speaks of its added tokens, and is then believed.
    edit_json(place / "tokenizer_config.json", added_tokens_decoder={})
    assert xray.checkpoints.open_checkpoint(copy).tokenizer.pad == tokenizer.end


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("unet/config.json", {"in_channels": 9}, r"unet/config\.json: .*in_channels 9, not 4"),
        (
            "unet/config.json",
            {"addition_embed_type": "text_time", "transformer_layers_per_block": [1, 2, 10]},
            r"addition_embed_type 'text_time', not None, transformer_layers_per_block \[1, 2, 10\]",
        ),
        ("unet/config.json", {"layers_per_block": [1, 2, 1, 1]}, r"layers_per_block is \[1, 2"),
        ("unet/config.json", {"block_out_channels": [8, 16]}, "and 4 numbers are read"),
        ("unet/config.json", {"attention_head_dim": 3}, r"heads \(3, 3, 3, 3\) do not divide"),
        ("vae/config.json", {"latent_channels": 16}, "latent_channels 16, not 4"),
        ("vae/config.json", {"scaling_factor": "big"}, "scaling_factor is 'big'"),
        ("text_encoder/config.json", {"hidden_act": "relu"}, "hidden_act is 'relu'; known are"),
        (
            "scheduler/scheduler_config.json",
            {"rescale_betas_zero_snr": True},
            "rescale_betas_zero_snr True, not False",
        ),
        ("scheduler/scheduler_config.json", {"beta_schedule": "linear"}, "is 'linear'; known"),
        ("scheduler/scheduler_config.json", {"prediction_type": "x"}, "is 'x'; known are epsilon"),
    ],
)
def test_what_is_no_stable_diffusion_of_ours_says_what_differs(copy, file, values, message):
    edit_json(copy / file, **values)
    with pytest.raises(ValueError, match=message):
        xray.load(copy)


@pytest.mark.parametrize(
    ("place", "values", "message"),
    [
        (
            "unet",
            {"block_out_channels": [8, 16, 16, 10**9]},
            r"bias is \(16,\), not \(1000000000,\)",
        ),
        (
            "unet",
            {"layers_per_block": 10**9},
            "down_blocks.0.resnets.999999999.conv2.bias is missi",
        ),
        ("vae", {"block_out_channels": [4, 8, 8, 8]}, r"conv2\.bias is \(4,\), not \(8,\)"),
        ("text_encoder", {"num_hidden_layers": 10**9}, "layers.999999999.mlp.fc1.bias is missing"),
        ("text_encoder", {"vocab_size": 10**12}, r"token_embedding\.weight is \(\d+, 16\), not"),
    ],
)
def test_sizes_that_the_weights_have_not_are_refused_before_building(
    copy, monkeypatch, place, values, message
):
    monkeypatch.setattr(building, "build", None)
    edit_json(copy / place / "config.json", **values)
    with pytest.raises(ValueError, match=message):
        xray.load(copy)


@pytest.mark.parametrize("place", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_folder_that_lacks_a_part_says_which(copy, place):
    shutil.rmtree(copy / place)
    with pytest.raises(ValueError, match=f"is a StableDiffusionPipeline without {place}"):
        xray.load(copy)


def test_a_vocabulary_that_would_give_other_ids_is_refused(copy):
    path = copy / "tokenizer" / "merges.txt"
    version, first, second, *rest = path.read_text("utf-8").split("\n")
    path.write_text("\n".join([version, second, first, *rest]), "utf-8")
    with pytest.raises(ValueError, match="does not follow from the merges|not one of CLIP's kind"):
        xray.load(copy)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("merges.txt", lambda text: b"\xff" + text, r"merges\.txt is damaged: 'utf-8' codec"),
        ("merges.txt", lambda text: text + b"a\n", "no table of ids with pairs to merge"),
        ("vocab.json", lambda text: text.replace(b": 7,", b': "7",'), "no table of ids"),
        (
            "vocab.json",
            lambda text: text.replace(b": 7,", b": 70000,"),
            "ids would be others|CLIP's",
        ),
        ("special_tokens_map.json", lambda text: b'{"pad_token": [1]}', "not one of CLIP's kind"),
        (
            "added_tokens.json",
            lambda text: json.dumps({"<toy>": TOKENS}).encode(),
            rf"has embeddings for {TOKENS} tokens, and the tokenizer has {TOKENS + 1}",
        ),
    ],
)
def test_a_damaged_vocabulary_is_named(copy, tokenizer, file, change, message):
    assert len(tokenizer.vocabulary) == TOKENS
    path = copy / "tokenizer" / file
    path.write_bytes(change(path.read_bytes() if path.exists() else b""))
    with pytest.raises(ValueError, match=message) as error:
        xray.load(copy)
    assert str(copy) in str(error.value)


def test_only_sizes_are_read_where_no_weights_are_wanted(copy, model, spare):
    for path in copy.glob("*/*.safetensors"):
        path.unlink()
    with into(spare):
        loaded = xray.load(copy, weights=None, seed=4)
    assert loaded.architecture == model.architecture and loaded.digest.startswith("random-4-")
    assert loaded.sources["unet"] == {"source": "random", "digest": loaded.digest}


def test_what_is_read_is_gone_when_its_thread_reads_again(folder, spare, monkeypatch):
    alive = []
    as_keras = building.as_keras

    def watched(key, value, *args):
        mine = [reference for reader, reference in alive if reader == threading.get_ident()]
        assert all(reference() is None for reference in mine), f"{key}: an earlier one is kept"
        alive.append((threading.get_ident(), weakref.ref(value)))
        return as_keras(key, value, *args)

    monkeypatch.setattr(building, "as_keras", watched)
    with into(spare):
        xray.load(folder)
    assert len(alive) == len(all_variables(spare))
    assert len({reader for reader, _ in alive}) <= 2


# --- single files ----------------------------------------------------------------------------

LDM_1 = Architecture(
    vocab_size=600,
    text_length=20,
    text_width=64,
    text_heads=1,
    text_layers=2,
    widths=(32, 32, 64, 64),
    heads=(8, 8, 8, 8),
    blocks=2,
    ae_widths=(32, 32, 32, 64),
    ae_blocks=1,
)
LDM_2 = replace(
    LDM_1,
    text_activation="gelu",
    widths=(64, 64, 128, 128),
    heads=(1, 1, 2, 2),
    blocks=1,
    linear_projections=True,
)


@pytest.fixture(scope="module", params=["1.x", "2.x"])
def published(request, tmp_path_factory):
    """A single file as it is published, its architecture, weights, and networks to load into."""
    arch = LDM_1 if request.param == "1.x" else LDM_2
    networks = building.build(arch, lambda shape: np.zeros(shape, np.float32))
    random = np.random.default_rng(0)
    for variable in all_variables(networks).values():
        variable.assign(random.standard_normal(variable.shape, np.float32))
    weights = {key: v.numpy() for key, v in all_variables(networks).items()}
    state = ldm_state(networks, openclip=request.param == "2.x")
    path = tmp_path_factory.mktemp("ldm") / "model.safetensors"
    save_file(state | training_leftovers(state), path)
    return path, arch, weights, networks


def options(arch):
    """2.x does not say what it predicts."""
    return {"prediction": "v"} if arch.linear_projections else {}


def test_a_single_file_is_the_model_it_was_made_of(published):
    path, arch, weights, networks = published
    with into(networks):
        loaded = xray.load(path, **options(arch))
    predicts = {"prediction": "v", "size": 768} if arch.linear_projections else {}
    assert loaded.architecture == replace(arch, **predicts)
    assert loaded.numerics == "reference" and loaded.spacing == "leading"
    assert loaded.name == "model" and loaded.tokenizer is None
    assert_same_weights(weights_of(loaded), weights)


def test_the_moving_average_is_taken_where_asked_for(published):
    path, arch, weights, networks = published
    with into(networks):
        plain, averaged = (xray.load(path, ema=ema, **options(arch)) for ema in (False, True))
    assert plain.digest != averaged.digest
    for key, values in weights_of(averaged).items():
        expected = weights[key] + np.float32(1) if key.startswith("unet/") else weights[key]
        np.testing.assert_array_equal(values, expected, err_msg=key)


def test_a_file_without_average_has_none_to_take(published, tmp_path):
    path, arch, *_ = published
    held = {k: v for k, v in load_file(path).items() if not k.startswith("model_ema.")}
    save_file(held, tmp_path / "pruned.safetensors")
    with pytest.raises(ValueError, match="has no moving average of the U-Net"):
        xray.load(tmp_path / "pruned.safetensors", ema=True, **options(arch))


def test_version_2_must_be_told_what_it_predicts(published):
    path, arch, *_ = published
    if not arch.linear_projections:
        pytest.skip("1.x predicts the noise")
    with pytest.raises(ValueError, match="prediction='epsilon' for a 512-base model"):
        xray.load(path)
    assert "unet/mid/attn.0/out" in sites_of(outline(path))  # which do not depend on it


def test_a_file_of_version_2_becomes_a_folder_that_says_what_it_predicts(published, tmp_path):
    path, arch, weights, networks = published
    if not arch.linear_projections:
        pytest.skip("1.x predicts the noise")
    asked = ["export", str(path), str(tmp_path / "out"), "--format", "xray"]
    assert "--prediction epsilon (or v)" in CliRunner().invoke(cli.app, asked).stderr
    assert "'x' is not epsilon" in CliRunner().invoke(cli.app, [*asked, "--prediction", "x"]).stderr
    with into(networks):
        told = CliRunner().invoke(cli.app, [*asked, "--prediction", "v", "--dtype", "float32"])
        assert told.exit_code == 0, told.output
        loaded = xray.load(tmp_path / "out")
    assert loaded.architecture.prediction == "v"
    assert_same_weights(weights_of(loaded), weights)


def test_version_2_has_all_its_layers_whether_or_not_openclips_last_is_there(published, tmp_path):
    path, arch, weights, networks = published
    if not arch.linear_projections:
        pytest.skip("1.x has no layer that is not used")
    save_file(as_converted(load_file(path)), tmp_path / "converted.safetensors")
    with into(networks):
        loaded = xray.load(tmp_path / "converted.safetensors", **options(arch))
    assert loaded.architecture.text_layers == arch.text_layers
    assert_same_weights(weights_of(loaded), weights)


@pytest.mark.parametrize(("blocks", "comparing"), [(23, True), (24, False), (24, True)])
def test_of_version_2_itself_23_layers_are_read(tmp_path, blocks, comparing):
    name = "cond_stage_model.model"
    held = {
        f"{name}.token_embedding.weight": np.zeros((3, 1024), np.float32),
        f"{name}.positional_embedding": np.zeros((2, 1024), np.float32),
        **{f"{name}.transformer.resblocks.{i}.ln_1.bias": np.zeros(3) for i in range(blocks)},
    }
    if comparing:
        held[f"{name}.logit_scale"] = np.zeros(1, np.float32)
    save_file(held, tmp_path / "text.safetensors")
    text = xray.checkpoints.open_checkpoint(tmp_path / "text.safetensors").components
    assert text["text_encoder"].sizes["text_layers"] == 23
    assert len(text["text_encoder"].tensors) == 2 + 23


def test_a_vocabulary_can_be_given(published, tokenizer):
    path, arch, _, networks = published
    with into(networks):
        loaded = xray.load(path, tokenizer=tokenizer, **options(arch))
    assert loaded.tokenizer is tokenizer


def test_a_vocabulary_for_another_number_of_tokens_is_refused(published, tokenizer):
    path, arch, _, networks = published
    longer = Tokenizer(tokenizer.merges, length=tokenizer.length + 1)
    with into(networks), pytest.raises(ValueError, match="the tokenizer makes"):
        xray.load(path, tokenizer=longer, **options(arch))


def test_the_path_of_a_vocabulary_can_be_given(published, folder, tokenizer):
    path, arch, _, networks = published
    with into(networks):
        loaded = xray.load(path, tokenizer=folder / "tokenizer", **options(arch))
    np.testing.assert_array_equal(loaded.tokenizer.ids(PROMPT), tokenizer.ids(PROMPT))
    larger = tokenizer.adding("<toy>", 600)
    with pytest.raises(
        ValueError, match="has embeddings for 600 tokens, and the tokenizer has 1138"
    ):
        xray.load(path, tokenizer=larger, **options(arch))


CLIP = Path(__file__).parents[2] / "shared" / "clip" / "bpe_simple_vocab_16e6.txt.gz"


@pytest.mark.skipif(not CLIP.exists(), reason=f"no CLIP vocabulary: {CLIP}")
def test_a_single_file_reads_prompts_with_clips_vocabulary_once_it_is_here(
    published, tmp_path, monkeypatch
):
    path, arch, _, networks = published
    place = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
    place = "cond_stage_model.model.token_embedding.weight" if arch.linear_projections else place
    held = load_file(path)
    assert place in held
    held[place] = np.zeros((49408, arch.text_width), np.float32)
    save_file(held, tmp_path / "model.safetensors")
    loaded = []
    monkeypatch.setenv("XRAY_CACHE", str(tmp_path))
    monkeypatch.setattr(
        building, "assemble", lambda checkpoint, **kwargs: loaded.append(checkpoint)
    )
    xray.load(tmp_path / "model.safetensors", **options(arch))
    shutil.copy(CLIP, tmp_path)
    xray.load(tmp_path / "model.safetensors", **options(arch))
    without, tokenizer = (checkpoint.tokenizer for checkpoint in loaded)
    assert without is None
    # As CLIP's tokenizer has them; 2.x pads with its own token.
    pad = 0 if arch.linear_projections else 49407
    assert tokenizer.ids("a photo of a cat")[:8].tolist() == [
        49406, 320, 1125, 539, 320, 2368, 49407, pad
    ]  # fmt: skip


def test_a_file_without_autoencoder_takes_another(published, tmp_path):
    path, arch, weights, networks = published
    held = load_file(path)
    parts = {
        "bare": {k: v for k, v in held.items() if not k.startswith("first_stage_model.")},
        "vae": {
            k.removeprefix("first_stage_model."): v
            for k, v in held.items()
            if k.startswith("first_stage_model.")
        },
    }
    for name, tensors in parts.items():
        save_file(tensors, tmp_path / f"{name}.safetensors")
    bare, vae = (tmp_path / f"{name}.safetensors" for name in parts)
    with pytest.raises(ValueError, match="bare holds no autoencoder: give autoencoder=PATH"):
        xray.load(bare, **options(arch))
    with pytest.raises(ValueError, match="vae holds no text_encoder and no unet"):
        xray.load(vae)
    with into(networks):
        loaded = xray.load(bare, autoencoder=vae, **options(arch))
    assert_same_weights(weights_of(loaded), weights)
    assert loaded.sources["autoencoder"]["source"] == str(vae)


NINE_CHANNELS = np.zeros((32, 9, 3, 3), np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.diffusion_model.extra": np.zeros(3)}, "surplus: model.diffusion_model.extra"),
        ({"strange.weight": np.zeros(3)}, "1 tensors are surplus: strange.weight"),
        ({"first_stage_model.quant_conv.bias": None}, "missing: first_stage_model.quant_conv.bias"),
        ({"model.diffusion_model.input_blocks.1.1.proj_in.weight": None}, "it tells the sizes"),
        ({"model.diffusion_model.input_blocks.0.0.weight": NINE_CHANNELS}, "for inpainting"),
    ],
)
def test_a_file_that_is_not_whole_says_what_is_wrong(published, tmp_path, change, message):
    path, arch, _, networks = published
    held = {name: value for name, value in (load_file(path) | change).items() if value is not None}
    save_file(held, tmp_path / "damaged.safetensors")
    with into(networks), pytest.raises(ValueError, match=message):
        xray.load(tmp_path / "damaged.safetensors", **options(arch))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "conditioner.embedders.0.transformer.text_model.final_layer_norm.weight",
            "is Stable Diffusion XL; 1.x and 2.x can be read",
        ),
        ("lora_unet_down.alpha", "is no Stable Diffusion in one file: it has lora_unet_down.alpha"),
    ],
)
def test_other_single_files_are_told_from_models(tmp_path, name, message):
    save_file({name: np.ones(3, np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=message):
        xray.load(tmp_path / "other.safetensors")


# --- single components -----------------------------------------------------------------------


@pytest.fixture
def other_autoencoder(copy):
    """A folder with another autoencoder's weights, as vae-ft-ema is published."""
    rewrite(
        copy / "vae" / "diffusion_pytorch_model.safetensors",
        lambda held: {name: value + np.float32(1) for name, value in held.items()},
    )
    return copy / "vae"


def test_one_component_comes_from_elsewhere(folder, other_autoencoder, model, spare):
    with into(spare):
        loaded = xray.load(folder, autoencoder=other_autoencoder)
    found, expected = weights_of(loaded), weights_of(model)
    for key, values in expected.items():
        if key.startswith(("encoder/", "decoder/")):
            values = values + np.float32(1)
        np.testing.assert_array_equal(found[key], values, err_msg=key)


def test_traces_say_which_component_came_from_where(folder, other_autoencoder, spare):
    with into(spare):
        loaded = xray.load(folder, autoencoder=other_autoencoder)
        plain = xray.load(folder)
    told = loaded.plan(PROMPT, steps=1).header.attrs["sources"]
    assert told["autoencoder"]["source"] == str(other_autoencoder)
    assert told["unet"]["source"] == str(folder / "unet")
    assert told["unet"] == plain.sources["unet"]
    assert told["autoencoder"]["digest"] != plain.sources["autoencoder"]["digest"]
    assert loaded.digest != plain.digest


def test_a_component_may_come_out_of_any_whole_model(folder, model, spare, tmp_path):
    save(model, tmp_path / "own", dtype="float32")
    with into(spare):
        loaded = xray.load(folder, unet=tmp_path / "own", text_encoder=folder)
    assert loaded.sources["unet"]["source"] == str(tmp_path / "own")
    assert_same_weights(weights_of(loaded), weights_of(model))


def test_a_unet_that_predicts_something_else_is_refused(folder, copy, spare):
    edit_json(copy / "scheduler" / "scheduler_config.json", prediction_type="v_prediction")
    with pytest.raises(ValueError, match=r"unet predicts v, and the U-Net of tiny epsilon: open"):
        xray.load(folder, unet=copy)
    with pytest.raises(ValueError, match=r"unet predicts v, and the U-Net of tiny epsilon: open"):
        xray.load(folder, unet=copy / "unet")
    with into(spare):
        xray.load(folder, autoencoder=copy, text_encoder=copy)
        (copy / "scheduler" / "scheduler_config.json").unlink()
        xray.load(folder, unet=copy / "unet")  # a component alone does not tell


def test_a_component_for_other_sizes_is_refused(folder, copy):
    edit_json(copy / "vae" / "config.json", scaling_factor=0.13025)
    with pytest.raises(
        ValueError, match=r"is no autoencoder for tiny: it has scaling_factor 0\.13025, not 0\.18"
    ):
        xray.load(folder, autoencoder=copy / "vae")
    whole = xray.checkpoints.open_checkpoint(folder)
    wide = {
        name: replace(part, sizes=part.sizes | {"text_width": 32})
        for name, part in whole.components.items()
    }
    with pytest.raises(ValueError, match="is no text_encoder for tiny: it has text_width 32, not"):
        whole.exchanged({"text_encoder": wide["text_encoder"]})
    # Two that are not for each other are noticed where nothing is exchanged, too.
    odd = replace(whole, components=whole.components | {"unet": wide["unet"]})
    with pytest.raises(ValueError, match=r"makes embeddings of 16 channels, and .*unet reads 32"):
        _ = odd.architecture
    with pytest.raises(ValueError, match="_class_name 'AutoencoderKL', not 'UNet2DConditionModel'"):
        xray.load(folder, unet=folder / "vae")
    with pytest.raises(ValueError, match="is one component of a model: give it as"):
        xray.load(folder / "vae")


# --- export ----------------------------------------------------------------------------------


def test_nothing_is_overwritten_unasked(model, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="exists and is not empty"):
        export_diffusers(model, tmp_path / "there")
    export_diffusers(model, tmp_path / "there", overwrite=True)
    export_diffusers(model, tmp_path / "there", overwrite=True)
    assert (tmp_path / "there" / "mine.txt").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["there"]
    assert (tmp_path / "there" / "model_index.json").is_file()


def test_an_export_over_a_model_that_is_interrupted_does_not_open(model, tmp_path, monkeypatch):
    place, rename = tmp_path / "there", Path.rename
    export_diffusers(model, place)
    moved = []

    def killed(self, target):
        if len(moved) == 2:
            raise KeyboardInterrupt
        moved.append(rename(self, target))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            export_diffusers(model, place, overwrite=True)
    with pytest.raises(ValueError, match="neither a model"):
        xray.load(place)
    export_diffusers(model, place, overwrite=True)
    assert (place / "model_index.json").is_file()


def test_a_model_is_not_saved_where_another_would_be_opened(model, tmp_path):
    export_diffusers(model, tmp_path / "there")
    with pytest.raises(ValueError, match="there holds a model in the form diffusers, which would"):
        save(model, tmp_path / "there")


def test_an_export_to_here_is_one_to_the_folder(model, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    export_diffusers(model, ".")
    assert (tmp_path / "here" / "model_index.json").is_file()


def test_an_export_that_fails_leaves_nothing(model, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("xray.checkpoints.vocabulary.save_vocabulary", full)
    with pytest.raises(OSError, match="No space left"):
        export_diffusers(model, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@contextlib.contextmanager
def full_disk(most=50_000):
    """No file can grow larger than so many bytes."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_said_and_leaves_nothing_half_written(model, tmp_path):
    place = tmp_path / "model"
    with full_disk(), pytest.raises(OSError, match=r"safetensors cannot be written: .*make room"):
        export_diffusers(model, place)
    assert list(tmp_path.iterdir()) == []
    save(model, place)
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    with full_disk(), pytest.raises(OSError, match=r"safetensors cannot be written: .*make room"):
        save(model, place, dtype="float32")
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before


def test_the_command_ends_in_one_line_where_the_disk_is_full(folder, spare, tmp_path):
    with into(spare), full_disk():
        told = CliRunner().invoke(cli.app, ["export", str(folder), str(tmp_path / "out")])
    assert told.exit_code == 2
    (line,) = told.stderr.splitlines()
    assert line.startswith("error: ") and "cannot be written" in line
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_vocabulary_cannot_be_exported(model, tmp_path, monkeypatch):
    monkeypatch.setattr(model, "tokenizer", None)
    with pytest.raises(ValueError, match="has no tokenizer"):
        export_diffusers(model, tmp_path / "model")


@pytest.mark.parametrize(("form", "opens"), [("diffusers", "model_index.json"), ("xray", None)])
def test_the_command_writes_what_load_opens(folder, model, spare, tmp_path, form, opens):
    with into(spare):
        told = CliRunner().invoke(
            cli.app, ["export", str(folder), str(tmp_path / "out"), "--format", form]
        )
    assert told.exit_code == 0, told.output
    assert opens is None or str(tmp_path / "out" / opens) in told.stdout
    with into(spare):
        loaded = xray.load(tmp_path / "out")
    assert_same_weights(weights_of(loaded), weights_of(model))


def test_the_command_replaces_a_model_only_if_asked(folder, spare, copy):
    asked = ["export", str(folder), str(copy), "--dtype", "float16"]
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    before = weights.read_bytes()
    refused = CliRunner().invoke(cli.app, asked)
    assert refused.exit_code == 2 and "--overwrite" in refused.stderr
    assert weights.read_bytes() == before
    with into(spare):
        told = CliRunner().invoke(cli.app, [*asked, "--overwrite"])
    assert told.exit_code == 0, told.output
    assert {values.dtype for values in load_file(weights).values()} == {np.dtype("float16")}


def test_the_command_has_all_weights_in_memory_where_load_would_not(
    folder, spare, tmp_path, monkeypatch
):
    monkeypatch.setattr(memory, "total", lambda: 10**8)  # less than any model takes
    with into(spare):
        told = CliRunner().invoke(cli.app, ["export", str(folder), str(tmp_path / "out")])
    assert told.exit_code == 0, told.output


def test_the_command_refuses_other_forms_before_it_begins(folder, tmp_path):
    for option, value in (("--format", "onnx"), ("--dtype", "int8")):
        told = CliRunner().invoke(
            cli.app, ["export", str(folder), str(tmp_path / "out"), option, value]
        )
        assert told.exit_code == 2 and f"'{value}' is not" in told.stderr
    assert not (tmp_path / "out").exists()
