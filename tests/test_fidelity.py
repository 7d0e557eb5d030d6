"""How near one picture is to another, on known answers."""

import numpy as np
import pytest

from xray.fidelity import psnr, ssim


def pictures(seed, shape=(2, 20, 17, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_psnr_of_a_known_error():
    a = np.full((1, 16, 16, 3), 100, np.uint8)
    assert psnr(a, a + np.uint8(16)) == pytest.approx(20 * np.log10(255 / 16))
    assert np.isinf(psnr(a, a))


def slow_ssim(a, b):
    """Wang et al. 2004, equation 13, window by window."""
    y, x = np.mgrid[-5:6, -5:6]
    w = np.exp(-(y**2 + x**2) / (2 * 1.5**2))
    w /= w.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for top in range(a.shape[0] - 10):
        for left in range(a.shape[1] - 10):
            p, q = (i[top : top + 11, left : left + 11].astype(float) for i in (a, b))
            mp, mq = (w * p).sum(), (w * q).sum()
            vp, vq = (w * (p - mp) ** 2).sum(), (w * (q - mq) ** 2).sum()
            cov = (w * (p - mp) * (q - mq)).sum()
            top_half = (2 * mp * mq + c1) * (2 * cov + c2)
            values.append(top_half / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    return np.mean(values)


def test_ssim_is_the_papers():
    a = pictures(0)
    b = np.clip(a * 0.7 + pictures(1) * 0.3, 0, 255).astype(np.uint8)
    slow = [
        np.mean([slow_ssim(p[..., c], q[..., c]) for c in range(3)])
        for p, q in zip(a, b, strict=True)
    ]
    np.testing.assert_allclose(ssim(a, b), slow, rtol=1e-9)


def test_ssim_of_equal_and_of_inverted_pictures():
    a = pictures(2)
    assert ssim(a, a) == pytest.approx(1.0)
    assert (ssim(a, 255 - a) < 0).all()
