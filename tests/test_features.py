from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from petgan import features
from petgan.errors import CheckpointError, ConfigError, InputError
from petgan.features import FEATURE_NETWORKS, Extractor, FeatureNetwork, find_weights, network_id, resized

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 16, 16), np.uint8)


def tiny():
    import keras

    layers = [
        keras.layers.Conv2D(4, 3),
        keras.layers.BatchNormalization(),
        keras.layers.GlobalAveragePooling2D(),
    ]
    return keras.Sequential([keras.Input((8, 8, 3)), *layers])


@pytest.fixture
def network(monkeypatch):
    monkeypatch.setitem(
        FEATURE_NETWORKS._entries, "tiny", FeatureNetwork(f"{__name__}:tiny", 8, "tiny.weights.h5")
    )
    return "tiny"


@pytest.fixture
def trained(tmp_path, network):
    """A file of weights whose batch normalization has seen images, and the model that has them."""
    model = tiny()
    model.layers[1].moving_mean.assign(np.arange(4) / 10)
    file = tmp_path / "given.weights.h5"
    model.save_weights(file)
    return file, model


def test_features_are_those_of_the_network_on_three_equal_channels(trained, network):
    file, model = trained
    extractor = Extractor(file, network=network)
    found = extractor.features(IMAGES[..., None])
    grey = np.stack([np.asarray(Image.fromarray(i.astype(np.float32)).resize((8, 8), 3)) for i in IMAGES])
    expected = model(np.repeat(grey[..., None] / 127.5 - 1, 3, axis=3), training=False)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.shape == (5, 4)


def test_batches_do_not_change_features(trained, network, monkeypatch):
    extractor = Extractor(trained[0], network=network)
    whole = extractor.features(IMAGES)
    monkeypatch.setattr(features, "BATCH_SIZE", 2)
    seen = []
    np.testing.assert_allclose(
        extractor.features(IMAGES, lambda done, total: seen.append((done, total))), whole, atol=1e-6
    )
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_features_are_kept_by_images_and_network_and_made_anew_when_damaged(trained, network, tmp_path):
    extractor = Extractor(trained[0], network=network)
    first = extractor.cached_features(IMAGES, tmp_path / "cache", "a")
    (file,) = (tmp_path / "cache").iterdir()
    np.save(file, first + 1)
    np.testing.assert_array_equal(extractor.cached_features(IMAGES, tmp_path / "cache", "a"), first + 1)
    np.testing.assert_array_equal(extractor.cached_features(IMAGES, tmp_path / "cache", "b"), first)
    file.write_bytes(b"cut short")
    np.testing.assert_array_equal(extractor.cached_features(IMAGES, tmp_path / "cache", "a"), first)
    nearest = Extractor(trained[0], "nearest", network)
    assert not np.array_equal(nearest.cached_features(IMAGES, tmp_path / "cache", "a"), first)


def test_a_cache_that_holds_a_pickle_is_not_opened(trained, network, tmp_path):
    extractor = Extractor(trained[0], network=network)
    extractor.cached_features(IMAGES, tmp_path / "cache", "a")
    (file,) = (tmp_path / "cache").iterdir()
    np.save(file, np.array([{}] * 5, dtype=object), allow_pickle=True)
    assert extractor.cached_features(IMAGES, tmp_path / "cache", "a").dtype == np.float32


def test_the_id_tells_network_weights_size_resize_and_range(trained, tmp_path, network):
    first = network_id(trained[0], "antialias", network)
    assert first == Extractor(trained[0], network=network).id
    name, digest, size, resize, span = first.split("/")
    assert (name, size, resize, span) == ("tiny", "8", "antialias(pillow-bicubic)", "-1..1")
    assert len(digest) == 8
    other = tmp_path / "other.weights.h5"
    other.write_bytes(b"other")
    assert (
        len({first, network_id(other, "antialias", network), network_id(trained[0], "nearest", network)}) == 3
    )


def test_weights_that_were_never_trained_are_refused(tmp_path, network):
    tiny().save_weights(tmp_path / "fresh.weights.h5")
    with pytest.raises(CheckpointError, match="never trained"):
        Extractor(tmp_path / "fresh.weights.h5", network=network)


def test_a_file_of_something_else_is_refused_in_a_sentence(tmp_path, network):
    (tmp_path / "notes.weights.h5").write_bytes(b"no weights at all")
    with pytest.raises(CheckpointError, match="does not hold the weights of tiny"):
        Extractor(tmp_path / "notes.weights.h5", network=network)


def test_inception_has_2048_features_of_299_pixels():
    kind = FEATURE_NETWORKS["inception-v3"]
    model = features.inception_v3()
    assert model.output_shape == (None, 2048)
    assert kind.size == 299
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


def test_an_unknown_resize_names_the_known(trained, network):
    with pytest.raises(ConfigError, match="antialias, nearest"):
        Extractor(trained[0], "bilinear", network)
