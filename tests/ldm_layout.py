"""A model's weights under the names of the latent-diffusion code, written as that code builds it.

It counts blocks as they are appended, as the constructors of its UNetModel, Encoder and Decoder
do, and knows nothing of our variables' names.
"""

from __future__ import annotations

import numpy as np


def as_converted(state):
    """As diffusers' conversion script writes 2.x: no layer that is not used, nothing to compare."""
    last = max(int(name.split(".")[4]) for name in state if ".resblocks." in name)
    left_out = (f".resblocks.{last}.", ".text_projection", ".logit_scale")
    return {k: v for k, v in state.items() if not any(part in k for part in left_out)}


def ldm_state(networks, *, openclip=False):
    """All tensors of a single file, float32, in PyTorch's layout."""
    state = _State()
    state.text(networks["text"], openclip)
    state.unet(networks["unet"])
    state.encoder(networks["encoder"])
    state.decoder(networks["decoder"])
    return state.tensors


class _State:
    def __init__(self):
        self.tensors = {}

    def put(self, name, layer):
        """A dense layer, a convolution, a normalisation or an embedding."""
        layer = getattr(layer, "conv2d", layer)
        kernel = getattr(layer, "kernel", None)
        if kernel is not None:
            value = np.moveaxis(kernel.numpy(), (-1, -2), (0, 1))
        else:
            value = (layer.gamma if hasattr(layer, "gamma") else layer.embeddings).numpy()
        self.tensors[f"{name}.weight"] = np.ascontiguousarray(value)
        bias = getattr(layer, "beta", getattr(layer, "bias", None))
        if bias is not None:
            self.tensors[f"{name}.bias"] = bias.numpy()

    # ----------------------------------------------------------------------------- text encoder

    def text(self, net, openclip):
        if openclip:
            self.openclip(net)
            return
        name = "cond_stage_model.transformer.text_model"
        self.put(f"{name}.embeddings.token_embedding", net.embedding.token_embedding)
        self.put(f"{name}.embeddings.position_embedding", net.embedding.position_embedding)
        length = net.embedding.position_embedding.embeddings.shape[0]
        self.tensors[f"{name}.embeddings.position_ids"] = np.arange(length)[None]
        for i, layer in enumerate(net.layers):
            at = f"{name}.encoder.layers.{i}"
            for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                self.put(f"{at}.self_attn.{part}", getattr(layer.clip_attn, part))
            self.put(f"{at}.layer_norm1", layer.layer_norm1)
            self.put(f"{at}.layer_norm2", layer.layer_norm2)
            self.put(f"{at}.mlp.fc1", layer.fc1)
            self.put(f"{at}.mlp.fc2", layer.fc2)
        self.put(f"{name}.final_layer_norm", net.norm)

    def openclip(self, net):
        name = "cond_stage_model.model"
        self.put(f"{name}.token_embedding", net.embedding.token_embedding)
        positions = net.embedding.position_embedding.embeddings.numpy()
        self.tensors[f"{name}.positional_embedding"] = positions
        for i, layer in enumerate([*net.layers, net.layers[-1]]):  # one more, which is not used
            at, a = f"{name}.transformer.resblocks.{i}", layer.clip_attn
            fused = (a.q_proj, a.k_proj, a.v_proj)
            weight = np.concatenate([p.kernel.numpy().T for p in fused])
            self.tensors[f"{at}.attn.in_proj_weight"] = np.ascontiguousarray(weight)
            bias = np.concatenate([p.bias.numpy() for p in fused])
            self.tensors[f"{at}.attn.in_proj_bias"] = bias
            self.put(f"{at}.attn.out_proj", a.out_proj)
            self.put(f"{at}.ln_1", layer.layer_norm1)
            self.put(f"{at}.ln_2", layer.layer_norm2)
            self.put(f"{at}.mlp.c_fc", layer.fc1)
            self.put(f"{at}.mlp.c_proj", layer.fc2)
        self.put(f"{name}.ln_final", net.norm)
        width = positions.shape[1]
        self.tensors[f"{name}.text_projection"] = np.eye(width, dtype=np.float32)
        self.tensors[f"{name}.logit_scale"] = np.float32([4.6])

    # ------------------------------------------------------------------------------------ U-Net

    def unet(self, net):
        name = "model.diffusion_model"
        self.put(f"{name}.time_embed.0", net.time[0])
        self.put(f"{name}.time_embed.2", net.time[1])
        self.put(f"{name}.input_blocks.0.0", net.conv_in)
        count = 1
        for level in net.down:
            for i, block in enumerate(level.res):
                self.res(f"{name}.input_blocks.{count}.0", block)
                if level.attn:
                    self.transformer(f"{name}.input_blocks.{count}.1", level.attn[i])
                count += 1
            if level.resample:
                self.put(f"{name}.input_blocks.{count}.0.op", level.resample)
                count += 1
        self.res(f"{name}.middle_block.0", net.mid.res[0])
        self.transformer(f"{name}.middle_block.1", net.mid.attn[0])
        self.res(f"{name}.middle_block.2", net.mid.res[1])
        count = 0
        for level in net.up:
            for i, block in enumerate(level.res):
                place = 0
                self.res(f"{name}.output_blocks.{count}.{place}", block)
                if level.attn:
                    place += 1
                    self.transformer(f"{name}.output_blocks.{count}.{place}", level.attn[i])
                if level.resample and block is level.res[-1]:
                    place += 1
                    at = f"{name}.output_blocks.{count}.{place}.conv"
                    self.put(at, level.resample.conv)
                count += 1
        self.put(f"{name}.out.0", net.norm_out)
        self.put(f"{name}.out.2", net.conv_out)

    def res(self, name, block):
        self.put(f"{name}.in_layers.0", block.entry_flow[0])
        self.put(f"{name}.in_layers.2", block.entry_flow[2])
        self.put(f"{name}.emb_layers.1", block.embedding_flow[1])
        self.put(f"{name}.out_layers.0", block.exit_flow[0])
        self.put(f"{name}.out_layers.3", block.exit_flow[2])
        if hasattr(block.residual_projection, "conv2d"):
            self.put(f"{name}.skip_connection", block.residual_projection)

    def transformer(self, name, block):
        self.put(f"{name}.norm", block.norm)
        self.put(f"{name}.proj_in", block.proj1)
        inner, at = block.transformer_block, f"{name}.transformer_blocks.0"
        for part, attention in (("attn1", inner.attn1), ("attn2", inner.attn2)):
            for projection in ("to_q", "to_k", "to_v"):
                self.put(f"{at}.{part}.{projection}", getattr(attention, projection))
            self.put(f"{at}.{part}.to_out.0", attention.out_proj)
        for part in ("norm1", "norm2", "norm3"):
            self.put(f"{at}.{part}", getattr(inner, part))
        self.put(f"{at}.ff.net.0.proj", inner.geglu.dense)
        self.put(f"{at}.ff.net.2", inner.dense)
        self.put(f"{name}.proj_out", block.proj2)

    # ------------------------------------------------------------------------------ autoencoder

    def encoder(self, net):
        name = "first_stage_model.encoder"
        self.put(f"{name}.conv_in", net.conv_in[0])
        for i, level in enumerate(net.levels):
            for j, block in enumerate(level.res):
                self.resnet(f"{name}.down.{i}.block.{j}", block)
            if level.resample:
                self.put(f"{name}.down.{i}.downsample.conv", level.resample)
        self.middle(name, net)
        self.put(f"{name}.conv_out", net.conv_out[0])
        self.put("first_stage_model.quant_conv", net.conv_out[1])

    def decoder(self, net):
        name = "first_stage_model.decoder"
        self.put("first_stage_model.post_quant_conv", net.conv_in[0])
        self.put(f"{name}.conv_in", net.conv_in[1])
        for i, level in zip(reversed(range(len(net.levels))), net.levels, strict=True):
            for j, block in enumerate(level.res):
                self.resnet(f"{name}.up.{i}.block.{j}", block)
            if level.resample:
                self.put(f"{name}.up.{i}.upsample.conv", level.resample)
        self.middle(name, net)
        self.put(f"{name}.conv_out", net.conv_out[0])

    def middle(self, name, net):
        self.resnet(f"{name}.mid.block_1", net.mid.res[0])
        for part in ("norm", "q", "k", "v", "proj_out"):
            self.put(f"{name}.mid.attn_1.{part}", getattr(net.mid.attn[0], part))
        self.resnet(f"{name}.mid.block_2", net.mid.res[1])
        self.put(f"{name}.norm_out", net.norm_out)

    def resnet(self, name, block):
        for part in ("norm1", "conv1", "norm2", "conv2"):
            self.put(f"{name}.{part}", getattr(block, part))
        if hasattr(block.residual_projection, "conv2d"):
            self.put(f"{name}.nin_shortcut", block.residual_projection)


def training_leftovers(state):
    """What is in published files besides the model: averages, the noise schedule, a loss."""
    averages = {
        "model_ema." + name.removeprefix("model.").replace(".", ""): value + np.float32(1)
        for name, value in state.items()
        if name.startswith("model.diffusion_model.")
    }
    return {
        **averages,
        "model_ema.decay": np.float32([0.9999]),
        "model_ema.num_updates": np.array([470000]),
        "betas": np.zeros(1000, np.float32),
        "sqrt_alphas_cumprod": np.zeros(1000, np.float32),
        "posterior_variance": np.zeros(1000, np.float32),
        "first_stage_model.loss.discriminator.main.0.weight": np.zeros((4, 3, 4, 4), np.float32),
    }
