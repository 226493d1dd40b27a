from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from petgan import features
from petgan.errors import CheckpointError, ConfigError, InputError
from petgan.features import (
    FEATURE_NETWORKS,
    Extractor,
    FeatureNetwork,
    NetworkFile,
    find_networks,
    find_weights,
    resized,
)

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 16, 16), np.uint8)


def tiny():
    import keras

    layers = [
        keras.layers.Conv2D(4, 3),
        keras.layers.BatchNormalization(),
        keras.layers.GlobalAveragePooling2D(),
    ]
    return keras.Sequential([keras.Input((8, 8, 3)), *layers])


@pytest.fixture(autouse=True)
def _tiny_is_known(monkeypatch):
    known = FeatureNetwork(f"{__name__}:tiny", "tiny.weights.h5")
    monkeypatch.setitem(FEATURE_NETWORKS._entries, "tiny", known)


@pytest.fixture
def trained(tmp_path):
    """A file of weights whose batch normalization has seen images, and the model that has them."""
    model = tiny()
    model.layers[1].moving_mean.assign(np.arange(4) / 10)
    file = tmp_path / "given.weights.h5"
    model.save_weights(file)
    return NetworkFile("tiny", file), model


def expected_features(model, images, channels=3):
    grey = np.stack([np.asarray(Image.fromarray(i.astype(np.float32)).resize((8, 8), 3)) for i in images])
    return model(np.repeat(grey[..., None] / 127.5 - 1, channels, axis=3), training=False)


def test_features_are_those_of_the_network_on_three_equal_channels(trained):
    network, model = trained
    found = Extractor(network).features(IMAGES[..., None])
    np.testing.assert_allclose(found, expected_features(model, IMAGES), atol=1e-5)
    assert found.shape == (5, 4)


def test_batches_do_not_change_features(trained, monkeypatch):
    extractor = Extractor(trained[0])
    whole = extractor.features(IMAGES)
    monkeypatch.setattr(features, "BATCH_SIZE", 2)
    seen = []
    np.testing.assert_allclose(
        extractor.features(IMAGES, lambda done, total: seen.append((done, total))), whole, atol=1e-6
    )
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_features_are_kept_by_images_and_network_and_made_anew_when_damaged(trained, tmp_path):
    extractor = Extractor(trained[0])
    first = extractor.cached_features(IMAGES, tmp_path / "cache", "a")
    (file,) = (tmp_path / "cache").iterdir()
    np.save(file, first + 1)
    np.testing.assert_array_equal(extractor.cached_features(IMAGES, tmp_path / "cache", "a"), first + 1)
    np.testing.assert_array_equal(extractor.cached_features(IMAGES, tmp_path / "cache", "b"), first)
    file.write_bytes(b"cut short")
    np.testing.assert_array_equal(extractor.cached_features(IMAGES, tmp_path / "cache", "a"), first)
    file.write_bytes(b"")
    np.testing.assert_array_equal(extractor.cached_features(IMAGES, tmp_path / "cache", "a"), first)
    nearest = Extractor(trained[0], "nearest")
    assert not np.array_equal(nearest.cached_features(IMAGES, tmp_path / "cache", "a"), first)


def test_a_cache_that_holds_a_pickle_is_not_opened(trained, tmp_path):
    extractor = Extractor(trained[0])
    extractor.cached_features(IMAGES, tmp_path / "cache", "a")
    (file,) = (tmp_path / "cache").iterdir()
    np.save(file, np.array([{}] * 5, dtype=object), allow_pickle=True)
    assert extractor.cached_features(IMAGES, tmp_path / "cache", "a").dtype == np.float32


def test_the_id_tells_network_weights_size_resize_and_range(trained, tmp_path):
    network, model = trained
    first = Extractor(network).id
    name, digest, size, resize, span = first.split("/")
    assert (name, size, resize, span) == ("tiny", "8", "antialias(pillow-bicubic)", "-1..1")
    assert len(digest) == 8
    model.layers[1].moving_mean.assign(np.ones(4))
    model.save_weights(tmp_path / "other.weights.h5")
    other = Extractor(NetworkFile("tiny", tmp_path / "other.weights.h5")).id
    assert len({first, other, Extractor(network, "nearest").id}) == 3


def test_weights_that_were_never_trained_are_refused(tmp_path):
    tiny().save_weights(tmp_path / "fresh.weights.h5")
    with pytest.raises(CheckpointError, match="never trained"):
        Extractor(NetworkFile("tiny", tmp_path / "fresh.weights.h5"))


def test_a_network_within_a_network_is_looked_at_too(tmp_path, monkeypatch):
    import keras

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(CheckpointError, match="never trained"):
        Extractor(saved(keras.Sequential([keras.Input((8, 8, 3)), tiny()]), tmp_path))


def test_a_file_of_something_else_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "notes.weights.h5").write_bytes(b"no weights at all")
    with pytest.raises(CheckpointError, match="does not hold the weights of tiny"):
        Extractor(NetworkFile("tiny", tmp_path / "notes.weights.h5"))


# --- any Keras model --------------------------------------------------------------------------------


def saved(model, tmp_path, name="mine"):
    model.save(tmp_path / f"{name}.keras")
    (network,) = find_networks(models=[tmp_path / f"{name}.keras"])
    return network


def test_a_model_by_its_path_is_called_after_its_file(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    network = saved(trained[1], tmp_path)
    extractor = Extractor(network)
    assert (extractor.name, extractor.id.split("/")[0], extractor.size) == ("mine", "mine", 8)
    np.testing.assert_allclose(extractor.features(IMAGES), expected_features(trained[1], IMAGES), atol=1e-5)


def test_maps_of_one_channel_are_averaged_and_images_of_any_size_stay_as_they_are(tmp_path, monkeypatch):
    import keras

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    model = keras.Sequential([keras.Input((None, None, 1)), keras.layers.Conv2D(3, 3)])
    extractor = Extractor(saved(model, tmp_path))
    maps = model((IMAGES[..., None] / 127.5 - 1).astype(np.float32)).numpy()
    np.testing.assert_allclose(extractor.features(IMAGES), maps.mean(axis=(1, 2)), atol=1e-5)
    assert extractor.id.endswith("/any/none/-1..1")


def test_a_model_that_brings_code_or_takes_no_images_is_refused(tmp_path, monkeypatch):
    import keras

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    code = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Lambda(lambda x: x * 2)])
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        Extractor(saved(code, tmp_path, "code"))
    vectors = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)])
    with pytest.raises(CheckpointError, match="no model of grey images"):
        Extractor(saved(vectors, tmp_path, "vectors"))


def test_models_are_found_before_anything_is_done_with_them(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert find_networks() == ()
    with pytest.raises(InputError, match="no such network"):
        find_networks(models=[tmp_path / "nowhere.keras"])
    weights = tmp_path / "weights.h5"
    weights.touch()
    with pytest.raises(InputError, match="--weights"):
        find_networks(models=[weights])
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.keras").touch()
    models = [tmp_path / folder / "same.keras" for folder in ("a", "b")]
    with pytest.raises(InputError, match="same name"):
        find_networks(models=models)
    names = [network.name for network in find_networks(weights, models[:1])]
    assert names == ["inception-v3", "same"]


def test_inception_has_2048_features_of_299_pixels():
    model = features.inception_v3()
    assert model.input_shape == (None, 299, 299, 3)
    assert model.output_shape == (None, 2048)
    assert sum("batch_normalization" in layer.name for layer in model.layers) == 94


def test_weights_are_looked_for_and_never_downloaded(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert find_weights() is None
    cached = tmp_path / "models" / FEATURE_NETWORKS["inception-v3"].cached_weights
    cached.parent.mkdir()
    cached.touch()
    assert find_weights() == cached
    given = tmp_path / "given.h5"
    with pytest.raises(InputError, match="no weights file"):
        find_weights(given)
    given.touch()
    assert find_weights(given) == given


def test_shrinking_averages_and_nearest_picks():
    stripes = np.tile(np.array([0, 255], np.uint8), (1, 64, 32))
    inner = resized(stripes, 16)[0, 4:-4, 4:-4]
    np.testing.assert_allclose(inner, 127.5, atol=3)
    picked = resized(stripes, 16, features.RESIZES["nearest"].kernel)
    assert set(np.unique(picked)) <= {0, 255}


def test_an_unknown_resize_names_the_known(trained):
    with pytest.raises(ConfigError, match="antialias, nearest"):
        Extractor(trained[0], "bilinear")
