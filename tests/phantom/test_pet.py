import numpy as np
import pytest

from petgan.phantom import pet, tomography

from .breasts import patient, plain


def test_the_same_state_gives_the_same_patient():
    one, other = patient(5), patient(5)
    assert one.dose_bq == other.dose_bq
    assert one.injected == other.injected
    np.testing.assert_array_equal(one.breast.coarse, other.breast.coarse)
    assert patient(6).breast.radius_mm != one.breast.radius_mm


def test_patients_are_possible_and_vary():
    patients = [patient(n) for n in range(60)]
    lesions = [lesion for who in patients for lesion in who.breast.lesions]
    assert {0, 1, 2} <= {len(who.breast.lesions) for who in patients}
    assert all(1.9 < lesion.contrast < 10.1 for lesion in lesions)
    diameters = np.array([2 * np.cbrt(np.prod(lesion.radii_mm)) for lesion in lesions])
    assert diameters.min() >= 4 - 1e-6
    assert diameters.max() <= 25 + 1e-6
    assert np.ptp([who.breast.radius_mm for who in patients]) > 15
    assert all(who.injected < who.scanned for who in patients)
    assert {who.side for who in patients} == {"L", "R"}


def test_breasts_and_lesions_lie_in_the_field_of_view():
    x, y = tomography.pixel_centres(64, pet.FIELD_MM)
    for number in range(40):
        who = patient(number)
        _, tissue = pet.uptake(who.breast, np.linspace(1, who.breast.length_mm - 1, 5), 64)
        assert not tissue[:, np.hypot(x, y) > pet.FIELD_MM / 2].any()
        for lesion in who.breast.lesions:
            suv, _ = pet.uptake(who.breast, np.array([lesion.centre_mm[2]]), 64)
            assert suv.max() > 1.5 * who.breast.gland_suv


def test_tissues_have_their_uptake():
    suv, tissue = pet.uptake(plain(skin_suv=0.8).breast, np.array([30.0]), 256)
    x, y = tomography.pixel_centres(256, pet.FIELD_MM)
    distance = np.hypot(x, y)
    np.testing.assert_allclose(suv[0, distance < 40], 0.4, rtol=1e-3)
    assert suv[0, distance > 60].max() == 0
    assert suv.max() == pytest.approx(0.8, abs=0.01)
    assert tissue[0, distance < 40].min() == 1

    suv, _ = pet.uptake(plain(gland_extent=5.0, gland_suv=1.3).breast, np.array([30.0]), 64)
    assert suv[0, 32, 32] == pytest.approx(1.3, rel=1e-3)


def test_a_finer_image_shows_the_same_breast():
    breast = patient(3).breast
    depths = np.array([20.0, 40.0])
    coarse, _ = pet.uptake(breast, depths, 64)
    fine, _ = pet.uptake(breast, depths, 256)
    assert np.corrcoef(coarse.ravel(), fine.reshape(2, 64, 4, 64, 4).mean(axis=(2, 4)).ravel())[0, 1] > 0.99


@pytest.mark.parametrize("recon", ["fbp", "mlem"])
def test_a_scan_finds_a_lesion_at_its_place_with_its_contrast(recon):
    lesion = pet.Lesion((20.0, -15.0, 25.0), (10.0, 10.0, 10.0), np.eye(3), contrast=5.0, core=0.0)
    who = plain(gland_suv=1.0, lesions=(lesion,))
    # The second of four slices is at 37.5 mm, the first at 12.5 mm; with two, the first is at 25 mm.
    images = pet.scan(who, 2, 64, recon, np.random.default_rng(0)).images / who.bq_per_ml
    x, y = tomography.pixel_centres(64, pet.FIELD_MM)
    inside = np.hypot(x - 20, y + 15) < 6
    around = (np.hypot(x, y) < 45) & (np.hypot(x - 20, y + 15) > 18)
    assert images[0][inside].mean() == pytest.approx(5.0, rel=0.1)
    assert images[0][around].mean() == pytest.approx(0.4, rel=0.1)
    assert images[1][inside].mean() < 0.8
    assert images.min() >= 0


def test_noise_is_that_of_the_generator():
    who = patient(1)
    one, same, other = (pet.scan(who, 2, 32, "fbp", np.random.default_rng(n)).images for n in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_decay_factor_agrees_with_the_integral_over_the_frame():
    t = np.linspace(0, 1, 200_001)
    for start, frame in [(0.0, 300.0), (600.0, 600.0), (5000.0, 4000.0)]:
        mean = np.mean(2 ** (-(start + frame * t) / pet.HALF_LIFE_S))
        assert pet.decay_factor(np.array([start]), frame)[0] == pytest.approx(1 / mean, rel=1e-5)


def test_slices_are_even_and_later_ring_positions_are_later():
    who = plain(length_mm=125.0)
    scan = pet.scan(who, 10, 32, "fbp", np.random.default_rng(0))
    np.testing.assert_allclose(np.diff(scan.depths_mm), 12.5)
    np.testing.assert_array_equal(scan.start_s, np.floor(scan.depths_mm / 40) * who.frame_s)
    assert np.all(np.diff(scan.decay) >= 0)
