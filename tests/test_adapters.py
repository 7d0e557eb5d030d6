"""LoRA merged by whatever names its file has and taken off to the bit; words that were learned."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from loading import into
from safetensors.numpy import save_file

import xray
from xray import adapters
from xray.checkpoints import export_diffusers, save
from xray.networks import variables
from xray.replay import replay

TOKENS = "text/embedding/token/embeddings"
PROMPT = "a red star above a blue moon"


@pytest.fixture(scope="module")
def loaded(saved):
    return xray.load(saved)


@pytest.fixture
def own(loaded):
    """A model from files, given back as it was."""
    before = weights(loaded)
    yield loaded
    for adapter in reversed(loaded.adapters):
        loaded.unload(adapter)
    assert same(weights(loaded), before)
    assert loaded.digest == loaded.own.digest and not loaded.own.kept


def weights(model):
    found = {}
    for part, net in model.networks.items():
        found |= {key: v.numpy() for key, v in variables(part, net).items()}
    return found


def same(a, b):
    """Bit for bit."""
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


def changed(a, b):
    return {key for key in a if not np.array_equal(a[key], b[key])}


# --- files, as other tools write them -----------------------------------------------------------

# Of the tiny model: our kernel, diffusers' name, LDM's, and how torch has its weight.
ATTENTION = "transformer_blocks.0"
LAYERS = {
    "unet/down.0/attn.0/self/to_q/kernel": (
        f"down_blocks.0.attentions.0.{ATTENTION}.attn1.to_q",
        f"input_blocks.1.1.{ATTENTION}.attn1.to_q",
        (8, 8),
    ),
    "unet/mid/attn.0/cross/to_k/kernel": (
        f"mid_block.attentions.0.{ATTENTION}.attn2.to_k",
        f"middle_block.1.{ATTENTION}.attn2.to_k",
        (16, 16),
    ),
    "unet/up.3/attn.1/cross/out_proj/kernel": (
        f"up_blocks.3.attentions.1.{ATTENTION}.attn2.to_out.0",
        f"output_blocks.7.1.{ATTENTION}.attn2.to_out.0",
        (8, 8),
    ),
    "text/layer.1/attention/q_proj/kernel": (
        "text_model.encoder.layers.1.self_attn.q_proj",
        None,
        (16, 16),
    ),
    "text/layer.0/attention/out_proj/kernel": (
        "text_model.encoder.layers.0.self_attn.out_proj",
        None,
        (16, 16),
    ),
}
MORE = {  # what the first tools did not change
    "unet/down.1/attn.0/ff/in/kernel": (
        f"down_blocks.1.attentions.0.{ATTENTION}.ff.net.0.proj",
        f"input_blocks.3.1.{ATTENTION}.ff.net.0.proj",
        (128, 16),
    ),
    "unet/down.1/attn.0/proj_in/kernel": (
        "down_blocks.1.attentions.0.proj_in",
        "input_blocks.3.1.proj_in",
        (16, 16, 1, 1),
    ),
    "unet/down.1/res.0/conv1/kernel": (
        "down_blocks.1.resnets.0.conv1",
        "input_blocks.3.0.in_layers.2",
        (16, 8, 3, 3),
    ),
    "unet/down.1/res.0/shortcut/kernel": (
        "down_blocks.1.resnets.0.conv_shortcut",
        "input_blocks.3.0.skip_connection",
        (16, 8, 1, 1),
    ),
    "unet/up.0/resample/kernel": (
        "up_blocks.0.upsamplers.0.conv",
        "output_blocks.1.1.conv",
        (16, 16, 3, 3),
    ),
    "unet/down.0/res.0/time/kernel": (
        "down_blocks.0.resnets.0.time_emb_proj",
        "input_blocks.1.0.emb_layers.1",
        (8, 32),
    ),
    "text/layer.0/fc1/kernel": ("text_model.encoder.layers.0.mlp.fc1", None, (64, 16)),
}


def prefix(key, dotted=True):
    part = {"unet": "unet", "text": "text_encoder" if dotted else "te"}[key.split("/")[0]]
    return f"{part}." if dotted else f"lora_{part}_"


def peft(key, name):
    return [f"{prefix(key)}{name}.lora_{ab}.weight" for ab in "AB"] + [f"{prefix(key)}{name}.alpha"]


def peft_alone(key, name):
    p = f"base_model.model.{name}"
    return [f"{p}.lora_A.default.weight", f"{p}.lora_B.default.weight", f"{p}.alpha"]


def diffusers(key, name):
    layer = "lora_linear_layer" if key.startswith("text/") else "lora"
    p = f"{prefix(key)}{name}"
    return [f"{p}.{layer}.down.weight", f"{p}.{layer}.up.weight", f"{p}.alpha"]


def first_diffusers(key, name):
    """Attention only, the projections of both networks called the same."""
    if key.startswith("text/"):
        name = name.replace("q_proj", "to_q").replace("out_proj", "to_out")
        p = f"text_encoder.{name}"
    else:
        layer, projection = name.replace("to_out.0", "to_out").rsplit(".", 1)
        p = f"{layer}.processor.{projection}"
    return [f"{p}_lora.down.weight", f"{p}_lora.up.weight", f"{p}.alpha"]


def transformers_5(key, name):
    return peft(key, name.removeprefix("text_model."))


def kohya(key, name):
    p = prefix(key, dotted=False) + name.replace(".", "_")
    return [f"{p}.lora_down.weight", f"{p}.lora_up.weight", f"{p}.alpha"]


STYLES = {
    "peft": (peft, LAYERS | MORE),
    "peft alone": (peft_alone, LAYERS | MORE),
    "diffusers": (diffusers, LAYERS | MORE),
    "diffusers 0.12": (first_diffusers, LAYERS),
    "transformers 5": (transformers_5, LAYERS | MORE),
    "kohya": (kohya, LAYERS | MORE),
    "kohya on LDM": (kohya, {k: v for k, v in (LAYERS | MORE).items() if v[1]}),
}
RANK, ALPHA = 3, 2.0


def factors(layers, seed=0):
    """Random (down, up) of each layer, as torch has them."""
    random = np.random.default_rng(seed)
    made = {}
    for key, (_, _, (out, inner, *grid)) in layers.items():
        down = random.standard_normal((RANK, inner, *grid), np.float32)
        up = random.standard_normal((out, RANK, *[1] * len(grid)), np.float32)
        made[key] = down, up
    return made


def write(path, layers, style=kohya, *, ldm=False, alpha=ALPHA, seed=0, metadata=None, dtype="f4"):
    """A LoRA file of these layers."""
    tensors = {}
    for key, (down, up) in factors(layers, seed).items():
        names = style(key, layers[key][1 if ldm else 0])
        tensors[names[0]], tensors[names[1]] = down.astype(dtype), up.astype(dtype)
        if alpha is not None:
            tensors[names[2]] = np.array(alpha, np.float32)
    save_file(tensors, path, metadata)
    return path


def expected(before, layers, factor, seed=0):
    """The weights with the products added, computed as torch would."""
    after = dict(before)
    for key, (down, up) in factors(layers, seed).items():
        product = np.einsum("or,ri...->oi...", up.reshape(up.shape[:2]), down)
        order = (2, 3, 1, 0) if product.ndim == 4 else (1, 0)
        after[key] = before[key] + np.float32(factor) * product.transpose(order)
    return after


# --- LoRA ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STYLES)
def test_every_style_of_name_comes_to_its_kernels_and_off_again(own, tmp_path, name):
    style, layers = STYLES[name]
    before = weights(own)
    path = write(tmp_path / "l.safetensors", layers, style, ldm=name.endswith("LDM"))
    adapter = own.load_lora(path, 0.5)
    after, wanted = weights(own), expected(before, layers, 0.5 * ALPHA / RANK)
    assert changed(after, before) == set(layers)
    for key in layers:
        np.testing.assert_allclose(after[key], wanted[key], rtol=0, atol=2e-6, err_msg=key)
    own.unload(adapter)
    assert same(weights(own), before)


@pytest.mark.parametrize(
    ("metadata", "factor"),
    [
        (None, 1),
        ({"unet.lora_alpha": 6, "text_encoder.lora_alpha": 6, "unet.r": 3}, 2),
        ({"lora_alpha": 6, "use_rslora": True}, 6 / 3**0.5),
        ({"lora_alpha": 3, "alpha_pattern": {"attn1.to_q": 12}}, 4),
        ({"lora_alpha": 3, "alpha_pattern": {"attn1.to_q": 12, "to_q": 6}}, 4),
        ({"lora_alpha": 3, "alpha_pattern": {"^to_q": 12}}, 1),  # the whole name, as in PEFT
        (
            {
                "lora_alpha": 3,
                "alpha_pattern": {f"^down_blocks.0.attentions.0.{ATTENTION}.attn1.to_q": 12},
            },
            4,
        ),
        ({"lora_alpha": 0}, 0),
    ],
)
def test_without_alpha_the_configuration_decides_or_the_rank(own, tmp_path, metadata, factor):
    key = "unet/down.0/attn.0/self/to_q/kernel"
    layers = {key: LAYERS[key]}
    written = metadata and {"lora_adapter_metadata": json.dumps(metadata)}
    path = write(tmp_path / "l.safetensors", layers, peft, alpha=None, metadata=written)
    before = weights(own)
    own.load_lora(path)
    wanted = expected(before, layers, factor)[key]
    np.testing.assert_allclose(weights(own)[key], wanted, rtol=0, atol=5e-6)


@pytest.mark.parametrize(
    "metadata",
    ["[1]", "{", "[" * 100_000, '{"lora_alpha": "6", "use_rslora": true}', '{"lora_alpha": [6]}'],
    ids=["list", "cut", "deep", "text", "numbers"],
)
def test_a_configuration_that_is_none_is_refused(own, tmp_path, metadata):
    key = "unet/down.0/attn.0/self/to_q/kernel"
    written = {"lora_adapter_metadata": metadata}
    path = write(tmp_path / "l.safetensors", {key: LAYERS[key]}, peft, alpha=None, metadata=written)
    with pytest.raises(ValueError, match=r"lora_adapter_metadata|a number is read"):
        own.load_lora(path)
    assert not own.adapters


@pytest.mark.parametrize("pattern", [r"attn[12]\.to_q", ".*attn1.*", "to_(q|k)", ""])
def test_a_regular_expression_for_alpha_is_refused_and_not_ignored(own, tmp_path, pattern):
    key = "unet/down.0/attn.0/self/to_q/kernel"
    metadata = {"unet.lora_alpha": 3, "unet.alpha_pattern": {pattern: 12}}
    written = {"lora_adapter_metadata": json.dumps(metadata)}
    path = write(tmp_path / "l.safetensors", {key: LAYERS[key]}, peft, alpha=None, metadata=written)
    with pytest.raises(ValueError, match=r"l\.safetensors: its alpha_pattern has .*write out"):
        own.load_lora(path)
    assert not own.adapters


@pytest.mark.parametrize("dtype", ["i8", "i4", "u1"])
def test_alpha_may_be_a_whole_number(own, tmp_path, dtype):
    from safetensors.numpy import load_file

    path = write(tmp_path / "l.safetensors", LAYERS, alpha=2)
    tensors = load_file(path)
    whole = {k: v.astype(dtype) if k.endswith(".alpha") else v for k, v in tensors.items()}
    save_file(whole, path)
    before = weights(own)
    own.load_lora(path)
    wanted = expected(before, LAYERS, 2 / RANK)
    for key in LAYERS:
        np.testing.assert_allclose(weights(own)[key], wanted[key], rtol=0, atol=2e-6)


def test_a_folder_of_peft_has_its_configuration_beside(own, tmp_path):
    key = "unet/mid/attn.0/cross/to_k/kernel"
    layers = {key: LAYERS[key]}
    write(tmp_path / "adapter_model.safetensors", layers, peft_alone, alpha=None)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 6, "r": 3}))
    before = weights(own)
    own.load_lora(tmp_path)
    wanted = expected(before, layers, 2)[key]
    np.testing.assert_allclose(weights(own)[key], wanted, rtol=0, atol=5e-6)


def test_weights_that_differ_by_their_configuration_have_other_digests(own, tmp_path):
    layers = {key: LAYERS[key] for key in ("unet/mid/attn.0/cross/to_k/kernel",)}
    write(tmp_path / "adapter_model.safetensors", layers, peft_alone, alpha=None)
    found = set()
    for alpha in (2, 20):
        (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": alpha, "r": 3}))
        adapter = own.load_lora(tmp_path)
        found.add((adapter.digest, own.digest))
        own.unload(adapter)
    assert len({adapter for adapter, _ in found}) == len({model for _, model in found}) == 2


def test_the_same_file_elsewhere_makes_the_same_model(own, tmp_path):
    here = write(tmp_path / "l.safetensors", LAYERS)
    (tmp_path / "moved").mkdir()
    there = tmp_path / "moved" / "other.safetensors"
    there.write_bytes(here.read_bytes())
    adapter = own.load_lora(here)
    trace, digest = own.generate(PROMPT, steps=1), own.digest
    own.unload(adapter)
    own.load_lora(there)
    assert own.digest == digest and replay(own, trace).equal


def test_half_precision_files_are_merged_in_float32(own, tmp_path):
    before = weights(own)
    path = write(tmp_path / "l.safetensors", LAYERS, dtype="f2")
    own.load_lora(path)
    wanted = expected(before, LAYERS, ALPHA / RANK)
    for key in LAYERS:
        np.testing.assert_allclose(weights(own)[key], wanted[key], rtol=0, atol=5e-3)


def test_taking_off_that_is_interrupted_changes_nothing(own, tmp_path, monkeypatch):
    lora = own.load_lora(write(tmp_path / "l.safetensors", LAYERS | MORE))
    before, digest = weights(own), own.digest
    merged, calls = adapters._merged, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == len(lora.changes) + 3:  # all were looked at, and two are taken off
            raise KeyboardInterrupt
        return merged(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(adapters, "_merged", interrupted)
        with pytest.raises(KeyboardInterrupt):
            own.unload(lora)
    assert same(weights(own), before) and own.digest == digest and own.adapters == [lora]


def test_a_scale_may_be_numpys(own, tmp_path):
    path = write(tmp_path / "l.safetensors", LAYERS)
    scales = [own.load_lora(path, scale).scale for scale in np.arange(2)]
    assert scales == [0.0, 1.0] and own.load_lora(path, np.float32(0.5)).scale == 0.5


def test_the_file_is_found_again_from_another_folder(own, tmp_path, monkeypatch):
    first, second = (write(tmp_path / f"{n}.safetensors", LAYERS, seed=n) for n in (1, 2))
    monkeypatch.chdir(tmp_path)
    kept = own.load_lora(first.name)
    wanted = weights(own)
    (tmp_path / "elsewhere").mkdir()
    taken = own.load_lora(second.name)
    monkeypatch.chdir("elsewhere")
    own.unload(taken)
    assert same(weights(own), wanted) and own.adapters == [kept]


def test_the_first_of_two_comes_off_as_if_it_had_never_been(own, tmp_path):
    some = dict(list(LAYERS.items())[:3])
    first = write(tmp_path / "first.safetensors", LAYERS | MORE, seed=1)
    second = write(tmp_path / "second.safetensors", some, seed=2)
    alone = own.load_lora(second, 0.7)
    wanted, digest = weights(own), own.digest
    own.unload(alone)

    adapter = own.load_lora(first)
    own.load_lora(second, 0.7)
    assert not same(weights(own), wanted) and own.digest != digest
    own.unload(adapter)
    assert same(weights(own), wanted) and own.digest == digest
    with pytest.raises(ValueError, match="not among this model's adapters"):
        own.unload(adapter)


def test_the_compiled_networks_see_it_without_being_compiled_again(own, tmp_path):
    path = write(tmp_path / "l.safetensors", LAYERS | MORE)
    ids = own.tokenizer.ids(PROMPT)[None]
    latent = np.random.default_rng(0).standard_normal((1, 8, 8, 4), np.float32)

    def outputs():
        context = own.text(ids)
        return context, own.predict(latent, 500, np.ones_like(context))

    before, traces = outputs(), (own.text.traces, own.unet.traces)
    adapter = own.load_lora(path)
    after = outputs()
    assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(after, before, strict=True))
    own.unload(adapter)
    for a, b in zip(outputs(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (own.text.traces, own.unet.traces) == traces


def test_without_files_the_original_values_are_kept(own, tmp_path, monkeypatch):
    monkeypatch.setattr(own.own, "read", None)
    before = weights(own)
    adapter = own.load_lora(write(tmp_path / "l.safetensors", LAYERS))
    assert set(own.own.kept) == set(LAYERS)
    own.unload(adapter)
    assert same(weights(own), before)


def test_files_that_have_changed_are_not_taken_for_the_own_weights(saved, spare, tmp_path):
    copy = shutil.copytree(saved, tmp_path / "copy")
    with into(spare):
        model = xray.load(copy)
    adapter = model.load_lora(write(tmp_path / "l.safetensors", LAYERS))
    merged = weights(model)
    path = copy / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-len(data) // 2 :] = bytes(len(data[-len(data) // 2 :]))
    path.write_bytes(data)
    with pytest.raises(ValueError, match="the model's files have changed"):
        model.unload(adapter)
    assert same(weights(model), merged) and model.adapters == [adapter]


def test_a_trace_says_what_was_added_and_is_not_replayed_without(own, tmp_path):
    plain = own.generate(PROMPT, steps=1)
    adapter = own.load_lora(write(tmp_path / "l.safetensors", LAYERS), 0.5)
    trace = own.generate(PROMPT, steps=1)
    assert plain.attrs["adapters"] == []
    (told,) = trace.attrs["adapters"]
    assert (
        told["kind"] == "lora" and told["scale"] == 0.5 and told["source"].endswith("l.safetensors")
    )
    assert len(told["digest"]) == 64 and trace.attrs["digest"] != plain.attrs["digest"]
    assert "l.safetensors" in repr(own)
    assert replay(own, trace).equal
    own.unload(adapter)
    with pytest.raises(ValueError, match=r"made with the adapters .*l\.safetensors"):
        replay(own, trace)
    assert replay(own, plain).equal


def foreign(tensors):
    for name in list(tensors):
        tensors[name.replace("down_blocks_0", "down_blocks_4")] = tensors.pop(name)


def one_short(tensors):
    del tensors[next(name for name in tensors if "lora_up" in name)]


def transposed(tensors):
    name = next(name for name in tensors if "lora_up" in name)
    tensors[name] = np.ascontiguousarray(tensors[name].T)


def wider(tensors):
    for name in list(tensors):
        if tensors[name].ndim:
            axis = 1 if "lora_down" in name else 0
            tensors[name] = np.concatenate([tensors[name]] * 2, axis)


def renamed(sign):
    def change(tensors):
        tensors[f"lora_unet_x.{sign}"] = np.zeros(3, np.float32)

    change.__name__ = sign
    return change


def whole_numbers(tensors):
    for name in tensors:
        tensors[name] = tensors[name].astype(np.int32)


def no_rank(tensors):
    for name in tensors:
        if tensors[name].ndim:
            axis = 0 if "lora_down" in name else 1
            tensors[name] = tensors[name].take([], axis)


def no_alpha(tensors):
    for name in tensors:
        if name.endswith("alpha"):
            tensors[name] = np.zeros(0, np.float32)


def infinite_at_last(tensors):
    """The layers before are merged by then, and must come off again."""
    name = [name for name in tensors if "lora_up" in name][-1]
    tensors[name][0, 0] = np.inf


def no_alpha_number(tensors):
    for name in tensors:
        if name.endswith("alpha"):
            tensors[name] = np.array(np.nan, np.float32)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (foreign, "is for another model: of its 5 layers 1 are not in this one: down_blocks_4"),
        (one_short, "has no up"),
        (transposed, "another model, or damaged"),
        (wider, "another model, or damaged"),
        (renamed("hada_w1_a"), "is LoHa"),
        (renamed("dora_scale"), "is DoRA"),
        (renamed("lora_mid.weight"), "Tucker"),
        (renamed("diff"), "no LoRA as diffusers, PEFT or kohya write it"),
        (whole_numbers, "no LoRA"),
        (no_alpha_number, "alpha nan"),
        (no_alpha, r"alpha \[\], and a number is read"),
        (no_rank, "is of rank 0"),
        (infinite_at_last, "is damaged: what it adds to .* is not finite"),
        (dict.clear, "no LoRA"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_does_not_fit_is_refused_and_the_model_left_as_it_was(own, tmp_path, change, said):
    from safetensors.numpy import load_file

    path = write(tmp_path / "l.safetensors", LAYERS)
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    before = weights(own)
    with pytest.raises(ValueError, match=said) as error:
        own.load_lora(path)
    assert str(path) in str(error.value)
    assert same(weights(own), before) and not own.adapters


@pytest.mark.parametrize("scale", [float("nan"), "1", True, None])
def test_a_scale_is_a_number(own, tmp_path, scale):
    with pytest.raises(ValueError, match="scale must be a number"):
        own.load_lora(tmp_path / "none.safetensors", scale)


@pytest.mark.parametrize("scale", [1e38, -1e39])
def test_a_scale_that_makes_weights_infinite_is_refused(own, tmp_path, scale):
    path = write(tmp_path / "l.safetensors", LAYERS)
    before = weights(own)
    with pytest.raises(ValueError, match=r"l\.safetensors has numbers that are too large for flo"):
        own.load_lora(path, scale)
    assert same(weights(own), before) and not own.adapters


def test_what_is_kept_in_half_precision_never_becomes_infinite(saved, tmp_path):
    half = xray.load(saved, dtype="float16")
    before = weights(half)
    path = write(tmp_path / "l.safetensors", LAYERS)
    with pytest.raises(ValueError, match="too large for float16: give a smaller scale"):
        half.load_lora(path, 1e6)
    save_file({"<toy>": learned(1) * 1e6}, tmp_path / "toy.safetensors")
    with pytest.raises(ValueError, match="<toy> has numbers that are too large for float16"):
        half.load_textual_inversion(tmp_path / "toy.safetensors")
    assert same(weights(half), before) and not half.adapters
    # Two that hold only together: the one cannot be taken off, and nothing has changed.
    other = write(tmp_path / "o.safetensors", LAYERS)
    largest = max(np.abs(up @ down).max() for down, up in factors(LAYERS).values())
    scale = 4e4 / float(largest) * RANK / ALPHA
    first = half.load_lora(other, -scale)
    half.load_lora(path, 2 * scale)
    merged = weights(half)
    with pytest.raises(ValueError, match="too large for float16"):
        half.unload(first)
    assert same(weights(half), merged) and len(half.adapters) == 2


# --- textual inversion --------------------------------------------------------------------------


def learned(count, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((count, 16), np.float32)
    return vectors[0] if count == 1 else vectors


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", ["<cat-toy>", "emb_params"])
def test_a_learned_word_is_its_vectors(own, tmp_path, name, count):
    save_file({name: learned(count)}, tmp_path / "toy.safetensors")
    before, tokenizer = weights(own), own.tokenizer
    rows = len(before[TOKENS])
    plain = own.text(own.tokenizer.ids(PROMPT)[None])
    adapter = own.load_textual_inversion(tmp_path / "toy.safetensors")
    word = {"<cat-toy>": "<cat-toy>", "emb_params": "<toy>"}[name]
    assert adapter.token == word and own.architecture.vocab_size == rows + count
    table = weights(own)[TOKENS]
    np.testing.assert_array_equal(table[:rows], before[TOKENS])
    np.testing.assert_array_equal(table[rows:], learned(count).reshape(count, 16))
    # The vectors stand where the word is, and all other prompts are what they were.
    _, sites = own.text.record(["text/embedding"], own.tokenizer.ids(f"a {word} star")[None])
    positions = weights(own)["text/embedding/position/embeddings"]
    given = sites["text/embedding"][0] - positions
    start = 1 + len(own.tokenizer.encode("a"))
    np.testing.assert_allclose(given[start : start + count], table[rows:], atol=1e-6)
    np.testing.assert_array_equal(own.text(own.tokenizer.ids(PROMPT)[None]), plain)
    own.unload(adapter)
    assert own.tokenizer is tokenizer and own.architecture.vocab_size == rows
    np.testing.assert_array_equal(own.text(own.tokenizer.ids(PROMPT)[None]), plain)


def test_a_learned_word_is_one_word_in_traces(own, tmp_path):
    save_file({"*": learned(2)}, tmp_path / "toy.safetensors")
    own.load_textual_inversion(tmp_path / "toy.safetensors", "<S*>")
    trace = own.generate(
        "a red <S*>", steps=1, guidance=1, record=["unet/mid/attn.0/cross/weights"]
    )
    weights_of = trace["unet/mid/attn.0/cross/weights"]
    of_word = weights_of.word("<s*>").values.astype(np.float32)
    position = [t.word for t in own.tokenizer.tokens("a red <S*>")].index("<s*>")
    both = weights_of.values[..., position : position + 2].astype(np.float32).sum(-1)
    np.testing.assert_allclose(of_word, both, atol=1e-3)
    (told,) = trace.attrs["adapters"]
    assert told["kind"] == "textual inversion" and told["token"] == "<S*>"
    assert replay(own, trace).equal


def test_words_and_lora_come_off_in_any_order(own, tmp_path):
    paths = [tmp_path / f"{name}.safetensors" for name in ("one", "two")]
    for i, path in enumerate(paths):
        save_file({"emb_params": learned(1 + i, seed=i)}, path)
    ids = {}
    one = own.load_textual_inversion(paths[0])
    lora = own.load_lora(write(tmp_path / "l.safetensors", LAYERS))
    two = own.load_textual_inversion(paths[1])
    base = own.architecture.vocab_size - 3
    ids["two"] = [t.id for t in own.tokenizer.encode("<two>")]
    assert ids["two"] == [base + 1, base + 2]
    own.unload(one)
    assert [t.id for t in own.tokenizer.encode("<two>")] == [base, base + 1]
    np.testing.assert_array_equal(weights(own)[TOKENS][base:], learned(2, seed=1))
    assert [a.kind for a in own.adapters] == ["lora", "textual inversion"]
    own.unload(lora)
    own.unload(two)
    assert own.architecture.vocab_size == base


def test_learned_words_are_saved_with_the_model(own, tmp_path):
    save_file({"<toy>": learned(2)}, tmp_path / "toy.safetensors")
    own.load_textual_inversion(tmp_path / "toy.safetensors")
    save(own, tmp_path / "saved", dtype="float32")
    again = xray.load(tmp_path / "saved")
    ids = own.tokenizer.ids("a <toy> star")[None]
    np.testing.assert_array_equal(again.tokenizer.ids("a <toy> star")[None], ids)
    np.testing.assert_array_equal(again.text(ids), own.text(ids))


def test_learned_words_go_out_to_diffusers_and_come_back(own, tmp_path):
    save_file({"<toy>": learned(2)}, tmp_path / "toy.safetensors")
    own.load_textual_inversion(tmp_path / "toy.safetensors")
    export_diffusers(own, tmp_path / "out")
    assert "<toy>" not in json.loads((tmp_path / "out" / "tokenizer" / "vocab.json").read_text())
    again = xray.load(tmp_path / "out")
    ids = own.tokenizer.ids("a <toy> star")[None]
    np.testing.assert_array_equal(again.tokenizer.ids("a <toy> star")[None], ids)
    np.testing.assert_array_equal(again.text(ids), own.text(ids))
    tokens = tmp_path / "out" / "tokenizer" / "added_tokens.json"
    tokens.write_text(json.dumps({"<end>": len(own.tokenizer.vocabulary) - 2}))
    with pytest.raises(ValueError, match="its added tokens are damaged"):
        xray.load(tmp_path / "out")


@pytest.mark.parametrize(
    ("tensors", "token", "said"),
    [
        ({"emb_params": np.zeros((2, 768), np.float32)}, None, r"\(n, 16\): it is for .* 1\.x"),
        ({"emb_params": np.zeros((2, 5, 16), np.float32)}, None, r"embeddings are \(n, 16\)"),
        ({"emb_params": np.zeros((0, 16), np.float32)}, None, "holds no vectors"),
        ({"emb_params": np.full((1, 16), np.nan, np.float32)}, None, "are no numbers"),
        ({"emb_params": np.zeros((1, 16), np.int32)}, None, "I32"),
        ({"clip_l": np.zeros((1, 16), np.float32)}, None, "is for SDXL"),
        ({"a": learned(1), "b": learned(1)}, None, "holds 2 tensors"),
        ({"<toy>": learned(1)}, "a toy", "without spaces"),
        ({"<toy>": learned(1)}, "<end>", "already means"),
    ],
)
def test_what_is_no_textual_inversion_is_refused(own, tmp_path, tensors, token, said):
    path = tmp_path / "toy.safetensors"
    save_file(tensors, path)
    before = weights(own)
    with pytest.raises(ValueError, match=said):
        own.load_textual_inversion(path, token)
    assert same(weights(own), before) and not own.adapters


def test_a_word_needs_a_vocabulary_of_the_models_size(own, tmp_path, monkeypatch):
    save_file({"<toy>": learned(1)}, tmp_path / "toy.safetensors")
    tokenizer = own.tokenizer
    monkeypatch.setattr(own, "tokenizer", tokenizer.adding("<more>"))
    with pytest.raises(ValueError, match="embeddings for a vocabulary of"):
        own.load_textual_inversion(tmp_path / "toy.safetensors")
    monkeypatch.setattr(own, "tokenizer", None)
    with pytest.raises(ValueError, match="without a vocabulary"):
        own.load_textual_inversion(tmp_path / "toy.safetensors")
