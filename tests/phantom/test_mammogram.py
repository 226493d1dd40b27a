from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from petgan.phantom import mammogram


def pictures(number, size=128):
    return mammogram.mammograms(size, np.random.SeedSequence(number))


@pytest.mark.parametrize("exponent", [2.0, 3.0])
def test_noise_follows_its_power_law(exponent):
    rng = np.random.default_rng(0)
    size = 128
    window = np.outer(np.hanning(size), np.hanning(size))
    power = np.mean(
        [
            np.abs(np.fft.fft2(window * mammogram.power_law_noise(size, exponent, rng))) ** 2
            for _ in range(30)
        ],
        axis=0,
    )
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None])
    band = (frequency > 0.05) & (frequency < 0.45)
    slope = np.polyfit(np.log(frequency[band]), np.log(power[band]), 1)[0]
    assert slope == pytest.approx(-exponent, abs=0.15)


def test_left_breasts_lie_on_the_left_edge():
    for number in range(6):
        for (side, _), picture in zip(mammogram.VIEWS, pictures(number), strict=True):
            middle = picture[48:80]
            at_wall, far = middle[:, :8].mean(), middle[:, -8:].mean()
            assert (at_wall > 2 * far) if side == "L" else (far > 2 * at_wall)


def test_the_pectoral_muscle_is_in_the_oblique_view_alone():
    for number in range(6):
        left_cc, left_mlo, right_cc, right_mlo = pictures(number)
        assert np.median(left_mlo[4:16, :8]) > 100 > np.median(left_cc[4:10, :8])
        assert np.median(right_mlo[4:16, -8:]) > 100 > np.median(right_cc[4:10, -8:])


def test_denser_breasts_are_brighter():
    means = []
    for share in (0.1, 0.3, 0.5, 0.7):
        woman = mammogram.random_woman(np.random.default_rng(0))
        woman = replace(woman, glandular_share=share)
        means.append(mammogram._picture(woman, "CC", [], 96, np.random.default_rng(1)).mean())
    assert np.all(np.diff(means) > 0)


def test_findings_and_labels_vary():
    women = [mammogram.random_woman(np.random.default_rng(n)) for n in range(60)]
    assert {woman.density for woman in women} == set("ABCD")
    assert {woman.tag for woman in women} == {True, False}
    kinds = {f.kind for n in range(60) for f in mammogram._random_findings(np.random.default_rng(n))}
    assert kinds == {"mass", "spiculated mass", "calcifications"}


def test_files_hold_the_pictures(tmp_path):
    for number in (0, 1):
        folder = tmp_path / str(number)
        mammogram.write_mammograms(folder, number, 128, np.random.SeedSequence(number))
        names = mammogram.file_names(number)
        assert sorted(path.name for path in folder.iterdir()) == sorted(names)
        assert {name.rpartition(".")[2] for name in names} == {"gif", "png"}
        for name, picture in zip(names, pictures(number), strict=True):
            with Image.open(folder / name) as file:
                assert file.format == name.rpartition(".")[2].upper()
                np.testing.assert_array_equal(np.asarray(file.convert("L")), picture)
    # What is a GIF of one patient is a PNG of the next.
    assert mammogram.file_names(0)[0] == "L_CC.png"
    assert mammogram.file_names(1)[0] == "L_CC.gif"


def test_every_size_can_be_made():
    for size in (64, 97, 300):
        assert all(picture.shape == (size, size) for picture in pictures(2, size))
