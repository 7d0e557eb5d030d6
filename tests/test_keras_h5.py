"""Keras 2's .h5 files: the weights come by their order alone, and each must find its place."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import h5py
import numpy as np
import pytest
from loading import into

import xray
from xray import architecture, checkpoints
from xray.checkpoints import building, fetching, keras_h5, registry
from xray.checkpoints import files as files_module
from xray.checkpoints.files import Tensor
from xray.checkpoints.registry import File, Licence, Published
from xray.networks import Autoencoder, TextEncoder, UNet, variables

PUBLISHED = Path(__file__).parents[2] / "shared" / "clip" / "bpe_simple_vocab_16e6.txt.gz"
needs_clip = pytest.mark.skipif(not PUBLISHED.exists(), reason=f"no CLIP vocabulary: {PUBLISHED}")


def layers_of(net):
    """A network's layers as KerasCV's model has them: the chain of the forward pass."""
    if isinstance(net, TextEncoder):
        return [net.embedding, *net.layers, net.norm]

    def level(level):
        pairs = [[res, *level.attn[i : i + 1]] for i, res in enumerate(level.res)]
        return [*sum(pairs, []), *([level.resample] if level.resample else [])]

    if isinstance(net, UNet):
        a, b = net.time
        ends = [net.norm_out, net.conv_out]
        down, up = (sum(map(level, levels), []) for levels in (net.down, net.up))
        # Keras sorts by depth: the first convolution stands between the two for the timestep.
        return [a, net.conv_in, b, *down, *level(net.mid), *up, *ends]
    assert isinstance(net, Autoencoder)
    (first, second), (attention,) = net.mid.res, net.mid.attn
    mid, levels = [first, attention, second], sum(map(level, net.levels), [])
    middle = [*mid, *levels] if len(net.conv_in) == 2 else [*levels, *mid]
    return [*net.conv_in, *middle, net.norm_out, *net.conv_out]


def write(path, net, *, split=False):
    """Keras 2's layout, with the order of weights in a layer as Keras itself has it."""
    with h5py.File(path, "w") as file:
        names = []
        # Layers without weights, such as activations, stand in the list too.
        for i, layer in enumerate([None, *layers_of(net), None]):
            names.append(f"layer_{i}")
            group = file.create_group(names[-1])
            weights = [] if layer is None else layer.weights
            inner = [f"layer_{i}/part_{j}/{w.name}:0" for j, w in enumerate(weights)]
            group.attrs["weight_names"] = [name.encode() for name in inner]
            for name, weight in zip(inner, weights, strict=True):
                group[name] = weight.numpy()
        file.create_group("top_level_model_weights").attrs["weight_names"] = []
        half = len(names) // 2 if split else len(names)
        if split:
            file.attrs["layer_names0"], file.attrs["layer_names1"] = names[:half], names[half:]
        else:
            file.attrs["layer_names"] = names
        file.attrs["keras_version"], file.attrs["backend"] = b"2.15.0", b"tensorflow"


NAMES = {part: names[0] for part, names in keras_h5.FILES.items()}


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("keras") / "datasets"
    folder.mkdir()
    for part, net in model.networks.items():
        write(folder / NAMES[part], net, split=part == "unet")
    return folder


@pytest.fixture
def copy(folder, tmp_path):
    """Links to the files, of which a test may replace one."""
    (tmp_path / "copy").mkdir()
    for path in folder.iterdir():
        (tmp_path / "copy" / path.name).hardlink_to(path)
    return tmp_path / "copy"


def open_tiny(folder, tiny, **options):
    files = {part: folder / name for part, name in NAMES.items()}
    return keras_h5.open_files("tiny", files, tiny, **options)


# --- every weight in its place -----------------------------------------------------------------


def test_every_weight_comes_to_its_place(model, tiny, folder, spare):
    with into(spare):
        loaded = building.assemble(open_tiny(folder, tiny))
    assert loaded.numerics == "keras_cv" and loaded.spacing == "linspace"
    assert loaded.architecture == tiny
    for part, net in model.networks.items():
        ours, theirs = variables(part, loaded.networks[part]), variables(part, net)
        assert ours.keys() == theirs.keys()
        for key, variable in theirs.items():
            np.testing.assert_array_equal(ours[key].numpy(), variable.numpy(), err_msg=key)


def test_a_unet_of_2x_alone(tiny, tmp_path):
    """Dense projections in its transformers; given as a component."""
    arch = dataclasses.replace(tiny, linear_projections=True, blocks=2)
    with architecture.initial_weights(np.random.default_rng(0).standard_normal):
        written = architecture.build_unet(arch)
    write(tmp_path / "tuned.h5", written)
    component = keras_h5.open_component(tmp_path / "tuned.h5", "unet", arch)
    assert component.sizes["linear_projections"] and component.digest
    with architecture.initial_weights(np.zeros):
        loaded = architecture.build_unet(arch)
    building.check({"unet": loaded}, {"unet": component})
    building.assign({"unet": loaded}, {"unet": component})
    ours, theirs = variables("unet", loaded), variables("unet", written)
    for key, variable in theirs.items():
        np.testing.assert_array_equal(ours[key].numpy(), variable.numpy(), err_msg=key)


def test_numerics_decide_spacing(folder, tiny):
    assert open_tiny(folder, tiny, numerics="reference").spacing == "leading"
    assert open_tiny(folder, tiny).spacing == "linspace"


@needs_clip
@pytest.mark.parametrize(
    ("linear", "numerics", "pad"),
    [(False, None, 49407), (True, None, 49407), (True, "reference", 0)],
)
def test_stock_keras_cv_pads_2x_with_the_end_token(folder, tiny, linear, numerics, pad):
    arch = dataclasses.replace(tiny, linear_projections=linear)
    # Names are given before shapes are compared, so that the files of 1.x do here.
    opened = open_tiny(folder, arch, vocabulary=PUBLISHED, numerics=numerics)
    assert opened.tokenizer.pad == pad and opened.tokenizer.length == tiny.text_length


# --- folders and names -------------------------------------------------------------------------


@pytest.fixture
def as_tiny(monkeypatch, tiny):
    """KerasCV's files are of Stable Diffusion's sizes; here they are of the tiny model's."""
    monkeypatch.setattr(keras_h5, "_version", lambda version: tiny)


def test_a_folder_is_known_by_its_names(folder, as_tiny, model, spare):
    assert checkpoints.form_of(folder) == "keras_cv"
    with into(spare):
        loaded = xray.load(folder)
    assert loaded.name == "datasets" and loaded.tokenizer is None
    assert str(folder / NAMES["encoder"]) in loaded.sources["autoencoder"]["source"]
    ids = model.tokenizer.ids("a red star")[None]
    expected = model.text(ids)
    assert np.abs(loaded.text(ids) - expected).max() < 0.1
    with into(spare):
        loaded = xray.load(folder, numerics="reference")
    np.testing.assert_array_equal(loaded.text(ids), expected)


def test_a_folder_with_two_versions_or_half_of_one_is_refused(copy):
    (copy / "diffusion_model_v2_1.h5").touch()
    with pytest.raises(ValueError, match=r"holds 1\.x and 2\.x: move diffusion_model_v2_1\.h5"):
        xray.load(copy)
    (copy / "kcv_diffusion_model.h5").unlink()
    with pytest.raises(ValueError, match=r"has diffusion_model_v2_1\.h5 but not text_encoder_v2"):
        xray.load(copy)
    (copy / "kcv_decoder.h5").unlink()
    with pytest.raises(ValueError, match=r"has no kcv_decoder\.h5"):
        xray.load(copy)


@pytest.fixture
def published(folder, monkeypatch, tmp_path, as_tiny):
    """A registry of one model, of which nothing is here."""
    monkeypatch.setenv("XRAY_CACHE", str(tmp_path / "cache"))
    files = {
        part: File(name, "http://127.0.0.1:9", files_module.sha256(folder / name), None, 10**9)
        for part, name in NAMES.items()
    }
    if PUBLISHED.exists():
        files["tokenizer"] = File(PUBLISHED.name, "", files_module.sha256(PUBLISHED), None, 10**6)
    model = Published("sd-v1-4", "a test", Licence("Test RAIL", "", ""), files)
    monkeypatch.setattr(registry, "registered", lambda: {"sd-v1-4": model})
    return model


@pytest.mark.parametrize("here", [False, True])
def test_weights_that_are_not_here_are_never_fetched_unasked(published, here, monkeypatch):
    monkeypatch.setattr(fetching, "fetch", lambda model: pytest.fail("fetched unasked"))
    if here:
        published.files["text"].path.parent.mkdir()
        published.files["text"].path.write_bytes(b"\0" * 1_000_000)
    with pytest.raises(ValueError, match="about 4 GB") as error:
        xray.load("sd-v1-4")
    told = str(error.value)
    for part in ("xray weights fetch sd-v1-4", "download=True", "weights=None", "Test RAIL"):
        assert part in told
    assert ("1 MB of about 4 GB are in" in told) == here


@needs_clip
def test_download_fetches_and_opens_them(published, folder, tokenizer, spare, monkeypatch):
    fetch = fetching.fetch

    def from_here(model):
        (folder / PUBLISHED.name).write_bytes(PUBLISHED.read_bytes())
        fetch(model, folder, say=lambda line: None)

    monkeypatch.setattr(fetching, "fetch", from_here)
    # CLIP's vocabulary came with them, and is too large for the tiny model.
    with into(spare):
        model = xray.load("sd-v1-4", download=True, tokenizer=tokenizer)
    assert model.name == "sd-v1-4" and not published.missing
    assert model.sources["unet"]["digest"] == published.files["unet"].sha256


def test_what_nobody_publishes_for_keras_cv_says_what_to_give():
    with pytest.raises(ValueError, match="path of a diffusers folder"):
        xray.load("sd-v2-1")


# --- damaged -----------------------------------------------------------------------------------


def truncated(path):
    path.write_bytes(path.read_bytes()[:100_000])


def empty(path):
    path.write_bytes(b"")


def web_page(path):
    path.write_text("<!DOCTYPE html><title>Sign in</title>")


def flipped_header(path):
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)


def changed(change):
    """The file, changed by `change(file, first group of a layer with weights)`."""

    def damage(path):
        with h5py.File(path, "r+") as file:
            change(file, file["layer_1"])

    return damage


def first_weight(group):
    return f"layer_1/part_0/{next(iter(group['layer_1/part_0']))}"


def missing_weight(file, group):
    group.attrs["weight_names"] = group.attrs["weight_names"][1:]


def missing_layer(file, group):
    group.attrs["weight_names"] = []


def surplus_layer(file, group):
    file["layer_0"].attrs["weight_names"] = ["x"]
    file["layer_0/x"] = np.zeros(3, np.float32)


def absent_weight(file, group):
    del group[first_weight(group)]


def soft_link(file, group):
    name = first_weight(group)
    del group[name]
    group[name] = h5py.SoftLink("/layer_2")


def external_link(file, group):
    name = first_weight(group)
    del group[name]
    group[name] = h5py.ExternalLink("/etc/passwd", "/x")


def external_numbers(file, group):
    name = first_weight(group)
    shape = group[name].shape
    del group[name]
    group.create_dataset(name, shape, "f4", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def no_names(file, group):
    for name in list(file.attrs):
        del file.attrs[name]


def number_for_names(file, group):
    no_names(file, group)
    file.attrs["layer_names"] = 7


def names_that_are_no_text(file, group):
    no_names(file, group)
    file.attrs["layer_names"] = [b"\xff"]


def wrong_width(file, group):
    name = first_weight(group)
    values = group[name][()]
    del group[name]
    group[name] = np.concatenate([values, values])


def whole_numbers(file, group):
    name = first_weight(group)
    values = group[name][()]
    del group[name]
    group[name] = values.astype(np.int32)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (truncated, "damaged.*fetch it again"),
        (empty, "is empty"),
        (web_page, "is a web page"),
        (flipped_header, "is no HDF5 file"),
        (changed(missing_weight), "its layer 0 has 1 weights"),
        (changed(missing_layer), r"has 3 layers with weights where the text has 4"),
        (changed(surplus_layer), r"has 5 layers with weights where the text has 4"),
        (changed(absent_weight), "which is not there"),
        (changed(soft_link), "is a link, perhaps to another file"),
        (changed(external_link), "is a link, perhaps to another file"),
        (changed(external_numbers), "are in another file"),
        (changed(no_names), "has no layer_names"),
        (changed(number_for_names), "is no HDF5 file, or damaged"),
        (changed(names_that_are_no_text), "is no HDF5 file, or damaged"),
        (changed(wrong_width), "text/embedding/token/embeddings .*, 16.* for"),
        (changed(whole_numbers), "no floating-point numbers: text/embedding/token/embeddings I32"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_damaged_file_is_refused_with_its_name(copy, tiny, spare, damage, said):
    path = copy / NAMES["text"]
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    damage(path)
    with pytest.raises(ValueError, match=said) as error:
        checked(open_tiny(copy, tiny), spare)
    assert str(path) in str(error.value)


def checked(opened, networks):
    """Compare with the shapes of a text encoder, as loading does first."""
    text = {"text_encoder": opened.components["text_encoder"]}
    building.check({"text": networks["text"]}, text)


def test_bits_flipped_among_the_numbers_are_found_by_the_digest_not_here(folder, published):
    """HDF5 has no checksums: that is what `xray weights verify` is for."""
    for part, name in NAMES.items():
        path = published.files[part].path
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((folder / name).read_bytes())
    path = published.files["text"].path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    found = fetching.verify(published)
    assert found[path.name] == "damaged"
    assert {found[name] for name in NAMES.values()} == {"damaged", "ok"}


@pytest.mark.parametrize(("width", "linear"), [(768, False), (1024, True)])
def test_the_version_of_a_file_is_known_by_a_width(width, linear):
    def layer(*shapes):
        return [Tensor(shape, "F32", lambda: None) for shape in shapes]

    text = [layer((49408, width), (77, width)), layer((width,), (width, width), (width,))]
    unet = [layer((320, 1280), (1280,)), layer((1280, 1280), (width, 1280), (1280,))]
    for layers in (text, unet):
        assert keras_h5._version_of(Path("x.h5"), layers).linear_projections == linear
    with pytest.raises(ValueError, match=r"x\.h5 is neither"):
        keras_h5._version_of(Path("x.h5"), [layer((16, 16))])
