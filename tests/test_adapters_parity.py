"""LoRA and textual inversion as diffusers and PEFT write and use them: the same networks after."""

from __future__ import annotations

import numpy as np
import pytest

import xray

torch = pytest.importorskip("torch", reason="needs the extra parity: torch")
diffusers = pytest.importorskip("diffusers", reason="needs the extra parity: diffusers")
peft = pytest.importorskip("peft", reason="needs the extra parity: peft")
pytest.importorskip("transformers", reason="needs the extra parity: transformers")

from safetensors.torch import save_file  # noqa: E402
from test_diffusers_parity import error, first, last, make_pipeline, normal  # noqa: E402

pytestmark = pytest.mark.slow

PROMPT = "a red star above a blue moon"
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
TARGETS = {
    "unet": [*ATTENTION, "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "conv1", "conv2"]
    + ["conv_shortcut", "time_emb_proj", "downsamplers.0.conv", "upsamplers.0.conv"],
    "text_encoder": ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"],
}


@pytest.fixture(scope="module", params=["1.x", "2.x"])
def saved(request, tokenizer, tmp_path_factory):
    """A pipeline with random adapters, and the files that it wrote before and of them."""
    folder = tmp_path_factory.mktemp("pipeline")
    pipeline = make_pipeline(request.param, tokenizer, folder)
    layers, metadata = {}, {}
    for i, (part, targets) in enumerate(TARGETS.items()):
        torch.manual_seed(i)
        config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=targets, init_lora_weights=False)
        network = getattr(pipeline, part)
        network.add_adapter(config)
        layers[f"{part}_lora_layers"] = peft.get_peft_model_state_dict(network)
        metadata[f"{part}_lora_adapter_metadata"] = network.peft_config["default"].to_dict()
    pipeline.save_lora_weights(folder / "diffusers", **layers, **metadata)
    kohya = {}
    for prefix, part in (("lora_unet", "unet"), ("lora_te", "text_encoder")):
        for name, values in layers[f"{part}_lora_layers"].items():
            layer, kind = name.split(".lora_")
            layer = f"{prefix}_{layer.replace('.', '_')}"
            kohya[f"{layer}.lora_{'down' if kind[0] == 'A' else 'up'}.weight"] = values.contiguous()
            kohya[f"{layer}.alpha"] = torch.tensor(6.0)
    (folder / "kohya").mkdir()
    save_file(kohya, folder / "kohya" / "pytorch_lora_weights.safetensors")
    with torch.no_grad():
        yield pipeline, folder


def outputs(pipeline, model):
    """Of the text encoder and of the U-Net, theirs and ours."""
    ids = model.tokenizer.ids(PROMPT)[None]
    latent, context = normal(1, 1, 8, 8, 4), normal(2, 1, model.tokenizer.length, 48)
    theirs = (
        pipeline.text_encoder(torch.from_numpy(ids.astype(np.int64)))[0],
        last(pipeline.unet(first(latent), 500, torch.from_numpy(context)).sample),
    )
    ours = model.text(ids), model.unet(latent, model.timestep_embedding(500)[None], context)
    return theirs, ours


@pytest.mark.parametrize("style", ["diffusers", "kohya"])
def test_a_merged_lora_computes_what_peft_computes(saved, style):
    pipeline, folder = saved
    model = xray.load(folder / "model")
    theirs, plain = outputs(pipeline, model)
    model.load_lora(folder / style)
    assert len(model.adapters[0].changes) > 100
    _, ours = outputs(pipeline, model)
    found = [error(a, b) for a, b in zip(ours, theirs, strict=True)]
    without = [error(a, b) for a, b in zip(plain, theirs, strict=True)]
    print(f"\n{style}: text {found[0]:.1e}, U-Net {found[1]:.1e}; without it {without}")
    assert max(found) < 1e-4 < 0.1 < min(without)


@pytest.mark.parametrize("style", ["diffusers", "kohya"])
def test_scale_is_that_of_diffusers(saved, style):
    pipeline, folder = saved
    again = diffusers.StableDiffusionPipeline.from_pretrained(folder / "model", safety_checker=None)
    again.load_lora_weights(folder / style, adapter_name="it")
    again.set_adapters(["it"], [0.3])
    model = xray.load(folder / "model")
    model.load_lora(folder / style, 0.3)
    theirs, ours = outputs(again, model)
    assert max(error(a, b) for a, b in zip(ours, theirs, strict=True)) < 1e-4


@pytest.mark.parametrize("name", ["<toy>", "emb_params"])
def test_a_learned_word_is_read_as_by_diffusers(saved, tmp_path, name):
    _, folder = saved
    vectors = torch.from_numpy(normal(3, 3, 48))
    save_file({name: vectors}, tmp_path / "toy.safetensors")
    again = diffusers.StableDiffusionPipeline.from_pretrained(folder / "model", safety_checker=None)
    again.load_textual_inversion(tmp_path / "toy.safetensors", token="<toy>")
    model = xray.load(folder / "model")
    model.load_textual_inversion(tmp_path / "toy.safetensors", "<toy>")
    theirs, _ = again.encode_prompt("a red <toy>", "cpu", 1, False)
    assert error(model.embed("a red <toy>").values, theirs) < 1e-4
