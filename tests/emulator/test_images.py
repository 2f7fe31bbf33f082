"""What is known of images by their names."""

from __future__ import annotations

import pytest

from components.vllm.image_cuda import cuda_in
from emulator import images


def test_a_pull_is_a_download_and_then_one_thread_that_unpacks():
    size = images.compressed_bytes("vllm/vllm-openai:v0.32.0")
    slow, fast = (images.pull_seconds(size, mbits) for mbits in (1000.0, 10000.0))
    assert slow - fast == pytest.approx(size * 8 * 0.9 / 1e9)
    assert fast > size / images.UNPACKED_BYTES_PER_SECOND


def test_published_pulls_of_vllm_took_longer_than_the_emulator_s():
    assert images.pull_seconds(9e9, 10000.0) < min(224, 245)


def test_an_image_that_is_there_needs_no_pull():
    assert images.pull_seconds(0.0, 100.0) == 0


@pytest.mark.parametrize(
    ("image", "cuda"),
    [
        ("mistralllm/vllm-ms4:latest", 12.8),
        ("mistralllm/vllm-ms4@sha256:" + "47" * 32, 12.8),
        ("vllm/vllm-openai:v0.18.0", 12.8),
        ("vllm/vllm-openai:v0.33.0", 13.0),
        ("vllm/vllm-openai:v0.33.0-cu129", 12.9),
        ("vllm/vllm-openai:latest", 13.0),
        ("ubuntu:24.04", 0.0),
    ],
)
def test_what_an_image_needs_of_a_driver_follows_the_image(image, cuda):
    assert images.cuda(image) == cuda
    believed = cuda_in(image)
    assert believed in {cuda, None}
