"""Every awkward file is decoded as a viewer would show it, or refused with a reason."""

import threading
import warnings
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageFile

from fgdiag import decode as room
from fgdiag.decode import decode, measure
from fgdiag.errors import ImageUnreadable

NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def encode(image, format="PNG", **options) -> bytes:
    """The bytes of an image file."""
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def plain(mode, colour, size=(16, 16)):
    return Image.new(mode, size, colour)


def reason(data) -> str:
    with pytest.raises(ImageUnreadable) as error:
        decode(data)
    return str(error.value)


def test_a_lossless_picture_comes_back_as_it_was(tmp_path):
    (tmp_path / "a.png").write_bytes(encode(NOISE))
    np.testing.assert_array_equal(np.asarray(decode(encode(NOISE))), NOISE)
    np.testing.assert_array_equal(np.asarray(decode(tmp_path / "a.png")), NOISE)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize(
    ("orientation", "red_corner"),
    list(enumerate(["top left", "top right", "bottom right", "bottom left"] * 2, start=1)),
)
def test_exif_orientation_is_applied(format, orientation, red_corner):
    lying = np.zeros((32, 64, 3), np.uint8)
    lying[:16, :32, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(lying, format, exif=exif)
    upright = decode(data)
    assert upright.size == measure(data) == ((64, 32) if orientation < 5 else (32, 64))
    column = 4 if "left" in red_corner else upright.width - 5
    row = 4 if "top" in red_corner else upright.height - 5
    assert np.asarray(upright)[row, column, 0] > 200
    assert np.asarray(upright)[upright.height - 1 - row, upright.width - 1 - column, 0] < 50


def test_broken_exif_does_not_cost_the_picture():
    data = encode(NOISE, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff garbage")
    assert decode(data).size == measure(data) == (60, 40)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_upper_byte(format):
    values = np.full((16, 16), 40_000, np.uint16)
    values[0, :3] = [0, 256, 65_535]
    grey = np.asarray(decode(encode(Image.fromarray(values), format)))
    assert grey[0, :3, 0].tolist() == [0, 1, 255]
    assert grey[5, 5].tolist() == [156, 156, 156]


def test_32_bit_pixels_have_no_known_white():
    assert "32 bits" in reason(encode(plain("F", 0.5), "TIFF"))
    assert "32 bits" in reason(encode(plain("I", 70_000), "TIFF"))


def test_cmyk_is_converted():
    cyan = decode(encode(plain("CMYK", (255, 0, 0, 0)), "TIFF"))
    assert cyan.getpixel((8, 8)) == (0, 255, 255)
    assert decode(encode(plain("CMYK", (0, 0, 0, 0)), "JPEG")).getpixel((8, 8)) == (255, 255, 255)


def test_transparency_lies_over_white():
    half_black = encode(plain("RGBA", (0, 0, 0, 128)))
    assert decode(half_black).getpixel((8, 8)) == (127, 127, 127)
    palette = plain("P", 0)
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.paste(1, (0, 0, 8, 16))
    picture = decode(encode(palette, transparency=0))
    assert picture.getpixel((12, 8)) == (255, 255, 255)
    assert picture.getpixel((2, 8)) == (0, 255, 0)
    as_bytes = decode(encode(palette, transparency=b"\x00\xff"))
    assert as_bytes.getpixel((12, 8)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_grey_and_bilevel_become_rgb(mode):
    assert decode(encode(plain("L", 255).convert(mode))).getpixel((3, 3)) == (255, 255, 255)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation_is_taken(format):
    frames = [plain("RGB", colour) for colour in ("red", "blue")]
    options = {"lossless": True} if format == "WEBP" else {}
    data = encode(frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert decode(data).getpixel((8, 8)) == (255, 0, 0)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_a_truncated_file_is_not_taken_for_a_whole_one(format, kept, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as other libraries do
    whole = encode(NOISE, format)
    assert reason(whole[: int(kept * len(whole))]).startswith("truncated: ")
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_damaged_bytes_end_in_a_picture_or_a_reason(format):
    random = np.random.default_rng(1)
    whole = np.frombuffer(encode(NOISE, format), np.uint8)
    reasons = []
    for _ in range(40):
        damaged = whole.copy()
        damaged[random.integers(0, len(whole), 8)] = random.integers(0, 256, 8)
        try:
            assert decode(damaged.tobytes()).mode == "RGB"
        except ImageUnreadable as error:
            reasons.append(str(error))
    assert all("\n" not in reason for reason in reasons)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "an empty file (0 bytes)"),
        (b"\n<!DOCTYPE html><html>404</html>", "an HTML page, not an image"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer, not the image"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "HEIC is not read"),
        (b"\xff\xd8\xff\xe0", "broken or cut off inside its header"),
        (b"hello there", "no image format"),
        (encode(plain("RGB", "red", (1, 1))), "1x1 pixels: smaller than 8 pixels on a side"),
        (encode(plain("RGB", "red", (400, 3))), "400x3 pixels: smaller than 8 pixels on a side"),
    ],
)
def test_what_is_no_usable_image_is_named(data, expected):
    assert reason(data).startswith(expected)
    with pytest.raises(ImageUnreadable):
        measure(data)


def test_files_that_cannot_be_read_are_named(tmp_path, monkeypatch):
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere")
    assert reason(tmp_path / "folder.jpg") == "a folder, not a file"
    assert reason(tmp_path / "dangling.jpg") == "no such file"
    assert reason(tmp_path / "none.jpg") == "no such file"
    (tmp_path / "locked.jpg").write_bytes(encode(NOISE))

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(room.Path, "read_bytes", refuse)
    assert reason(tmp_path / "locked.jpg") == "no permission to read the file"


def test_a_panorama_of_20_000_pixels_keeps_its_size():
    data = encode(plain("RGB", "green", (20_000, 30)), "JPEG")
    assert decode(data).size == measure(data) == (20_000, 30)


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_huge_pictures_are_halved_until_they_fit(format, orientation, monkeypatch):
    monkeypatch.setattr(room, "KEPT_PIXELS", 200 * 200)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(plain("RGB", (200, 100, 50), (400, 800)), format, exif=exif)
    picture = decode(data)
    assert picture.size == ((100, 200) if orientation == 1 else (200, 100))
    assert measure(data) == ((400, 800) if orientation == 1 else (800, 400))
    np.testing.assert_allclose(np.asarray(picture)[50, 50], (200, 100, 50), atol=3)


def test_above_the_limit_there_is_a_reason_and_pil_keeps_its_own(monkeypatch):
    monkeypatch.setattr(room, "MAX_PIXELS", 1_000_000)
    before = Image.MAX_IMAGE_PIXELS
    assert reason(encode(plain("1", 1, (1200, 1000)))) == "1200x1000 pixels: more than 1 megapixels"
    assert reason(encode(plain("1", 1, (3000, 1000)))) == "more than 1 megapixels"
    assert before == Image.MAX_IMAGE_PIXELS


def test_pil_warnings_and_settings_are_kept_apart_over_threads():
    filters = list(warnings.filters)
    limit = Image.MAX_IMAGE_PIXELS
    data = [encode(NOISE), b"", encode(NOISE, "JPEG")[:200]]
    failures = []

    def work():
        for _ in range(20):
            for item in data:
                try:
                    decode(item)
                except ImageUnreadable:
                    pass
                except BaseException as error:
                    failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert warnings.filters == filters
    assert limit == Image.MAX_IMAGE_PIXELS
