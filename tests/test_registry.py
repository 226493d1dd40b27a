import pytest

from petgan.errors import ConfigError
from petgan.registry import Registry, load


def test_an_unknown_name_is_answered_with_the_valid_ones_and_the_nearest():
    fruit = Registry("fruit")
    fruit.add("apple", 1)
    fruit.add("pear", 2)
    with pytest.raises(ConfigError) as caught:
        fruit["aple"]
    assert str(caught.value) == (
        "there is no such fruit: got 'aple'; allowed: apple, pear; did you mean 'apple'?"
    )


def test_a_name_is_given_once():
    fruit = Registry("fruit")
    fruit.add("apple", 1)
    with pytest.raises(ValueError, match="registered already"):
        fruit.add("apple", 2)
    assert fruit["apple"] == 1


def test_load_imports_what_a_reference_names():
    assert load("os.path:join")("a", "b") == "a/b"
