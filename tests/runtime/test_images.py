"""Finding pictures, and decoding what cameras, scanners and instruments write."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from PIL import Image

from onnxplain.errors import InputError
from onnxplain.runtime import find_images, load_image
from onnxplain.runtime.inputs.images import formats, size_of


@pytest.fixture
def photograph() -> Image.Image:
    """40 × 30, smooth, so that JPEG and CMYK keep it well."""
    y, x = np.mgrid[:30, :40]
    return Image.fromarray(np.stack([6 * x, 8 * y, 255 - 3 * x - 3 * y], axis=-1).astype(np.uint8))


def pixels(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


# Kinds of pictures


def test_rgb_is_read_as_it_is(photograph, tmp_path):
    photograph.save(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels(load_image(tmp_path / "a.png")), photograph)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_exif_orientation_is_applied(photograph, tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90° clockwise to see it upright
    photograph.save(tmp_path / f"a{suffix}", exif=exif)
    upright = np.asarray(photograph.rotate(-90, expand=True))
    assert np.abs(pixels(load_image(tmp_path / f"a{suffix}")) - upright).mean() < 6


def test_grey_becomes_three_equal_channels(photograph, tmp_path):
    grey = photograph.convert("L")
    grey.save(tmp_path / "a.png")
    image = pixels(load_image(tmp_path / "a.png"))
    for channel in range(3):
        np.testing.assert_array_equal(image[..., channel], grey)


def test_black_and_white():
    assert pixels(load_image(Image.new("1", (2, 2), 1))).min() == 255


def test_palette_colours_are_looked_up(photograph, tmp_path):
    palette = photograph.quantize(16)
    palette.save(tmp_path / "a.gif")
    np.testing.assert_array_equal(pixels(load_image(tmp_path / "a.gif")), palette.convert("RGB"))


def test_a_transparent_palette_colour_shows_white(tmp_path):
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "a.png", transparency=0)
    image = pixels(load_image(tmp_path / "a.png"))
    assert image[0].tolist() == [[255, 255, 255], [0, 0, 255]]


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [("RGBA", (255, 0, 0, 102), (255, 153, 153)), ("LA", (0, 51), (204, 204, 204))],
)
def test_transparency_is_composited_over_white(mode, colour, expected, tmp_path):
    Image.new(mode, (2, 2), colour).save(tmp_path / "a.png")
    assert tuple(pixels(load_image(tmp_path / "a.png"))[0, 0]) == expected


def test_cmyk_jpeg(photograph, tmp_path):
    photograph.convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    with Image.open(tmp_path / "a.jpg") as written:
        assert written.mode == "CMYK"
    assert np.abs(pixels(load_image(tmp_path / "a.jpg")) - np.asarray(photograph)).mean() < 4


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_grey_is_scaled_not_clipped(suffix, tmp_path):
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"a{suffix}")
    image = pixels(load_image(tmp_path / f"a{suffix}"))
    assert image[0, :, 0].tolist() == [0, 1, 128, 255]


def test_many_pixels_are_scaled_in_little_memory():
    """A file of 170 KB has 88 million; all of them in float64 were 2.5 GB."""
    many = Image.fromarray(np.full((2000, 2000), 257, np.uint16))
    tracemalloc.start()
    try:
        found = load_image(many)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.getpixel((1999, 1999)) == (1, 1, 1)
    assert peak < 50 * 2**20


def test_integers_outside_sixteen_bits_are_scaled_by_their_own_range():
    image = load_image(Image.fromarray(np.array([[-100_000, 0, 100_000]], np.int32)))
    assert pixels(image)[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("top", [1, 255, 65535])
def test_floats_are_scaled_from_the_usual_range_that_holds_them(top, tmp_path):
    values = np.array([[0, 0.2 * top, 0.9 * top]], np.float32)
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert pixels(load_image(tmp_path / "a.tif"))[0, :, 0].tolist() == [0, 51, 230 - (top == 1)]


def test_other_floats_are_scaled_by_their_own_range():
    image = load_image(Image.fromarray(np.array([[-3, -1, 1]], np.float32)))
    assert pixels(image)[0, :, 0].tolist() == [0, 128, 255]


def test_a_constant_float_image_outside_the_usual_ranges_does_not_divide_by_zero():
    assert pixels(load_image(Image.new("F", (2, 2), -7.0))).max() == 0


# Pictures that cannot be used


def test_no_such_file(tmp_path):
    with pytest.raises(InputError, match=r"no such file: .*none\.jpg"):
        load_image(tmp_path / "none.jpg")


def test_a_folder_is_not_an_image(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load_image(tmp_path)


def test_a_file_that_is_not_an_image(tmp_path):
    (tmp_path / "a.jpg").write_text("hello")
    with pytest.raises(InputError, match="not an image"):
        load_image(tmp_path / "a.jpg")


def test_a_format_that_starts_a_program_is_none_of_an_image(tmp_path):
    """Whatever the file is called; Pillow would start Ghostscript."""
    (path := tmp_path / "a.jpg").write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n%%EOF\n"
    )
    for read in (load_image, size_of):
        with pytest.raises(InputError, match="is not an image of JPEG, PNG"):
            read(path)


@pytest.mark.parametrize("kind", formats())
def test_a_size_is_read_from_every_format(kind, photograph, tmp_path):
    photograph.save(tmp_path / "a", kind)
    assert size_of(tmp_path / "a") == load_image(tmp_path / "a").size == photograph.size


def test_a_truncated_jpeg(photograph, tmp_path):
    path = tmp_path / "a.jpg"
    photograph.save(path)
    path.write_bytes(path.read_bytes()[:-80])
    with pytest.raises(InputError, match="damaged or cut short"):
        load_image(path)


def test_a_damaged_png(photograph, tmp_path):
    path = tmp_path / "a.png"
    photograph.save(path)
    content = bytearray(path.read_bytes())
    content[60:70] = b"0123456789"
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged or cut short"):
        load_image(path)


@pytest.mark.parametrize("limit", [700, 1100], ids=["error", "warning"])
def test_a_decompression_bomb(limit, photograph, tmp_path, monkeypatch):
    photograph.save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    assert limit < 40 * 30
    with pytest.raises(InputError, match="too large to be decoded safely"):
        load_image(tmp_path / "a.png")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_not_finite(value, tmp_path):
    Image.fromarray(np.array([[0, value]], np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match=r"'.*a\.tif' has NaN or infinite pixels"):
        load_image(tmp_path / "a.tif")


def test_an_image_without_pixels():
    with pytest.raises(InputError, match="no pixels"):
        load_image(Image.new("RGB", (0, 4)))


# Finding them


@pytest.fixture
def folder(tmp_path):
    for name in ("b.JPG", "a.png", "notes.txt", ".hidden.png", "deep/er/c.webp"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def names(paths):
    return [path.name for path in paths]


def test_a_folder_is_searched_recursively_for_image_suffixes(folder):
    assert names(find_images(folder)) == ["a.png", "b.JPG", "c.webp"]


def test_a_file_is_taken_whatever_its_suffix(folder):
    assert names(find_images([folder / "notes.txt"])) == ["notes.txt"]


def test_a_pattern_is_expanded(folder):
    assert names(find_images(f"{folder}/*")) == ["a.png", "b.JPG"]
    assert names(find_images(f"{folder}/**/*.webp")) == ["c.webp"]


def test_an_existing_file_is_not_taken_for_a_pattern(folder):
    (folder / "a[1].png").touch()
    assert names(find_images(folder / "a[1].png")) == ["a[1].png"]


def test_what_is_named_twice_is_found_once(folder):
    found = find_images([folder / "b.JPG", folder, folder / "deep" / ".." / "a.png"])
    assert sorted(names(found)) == ["a.png", "b.JPG", "c.webp"]


@pytest.mark.parametrize("path", ["none.jpg", "*.bmp", "empty"])
def test_a_path_that_names_no_image_is_an_error(folder, path):
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match="no image found at"):
        find_images([folder, folder / path])


def test_no_path_is_an_error():
    with pytest.raises(InputError, match="no image given"):
        find_images([])
