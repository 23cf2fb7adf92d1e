"""Every image is decoded as Pillow decodes it, or refused with a reason; none is changed silently."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from patch_sets import encoded, plain_tiff, some_patches
from PIL import Image

from pcam_model.data.image import Decoder, PatchError, decode_with_pillow

GENUINE = Path(__file__).parents[3] / "shared" / "data" / "kaggle_tif"
PATCH = some_patches(2)[0][1]
IMAGE = Image.fromarray(PATCH)


def saved(image: Image.Image, file_format: str, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, file_format, **options)
    return content.getvalue()


def tiled() -> bytes:
    """An uncompressed TIFF of tiles of 48x48, made from Pillow's striped one."""
    tiles = [PATCH[y : y + 48, x : x + 48].tobytes() for y in (0, 48) for x in (0, 48)]
    starts = [200 + 6912 * i for i in range(4)]
    tags = [
        (256, 3, 1, 96),
        (257, 3, 1, 96),
        (258, 3, 3, 150),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (277, 3, 1, 3),
        (284, 3, 1, 1),
        (322, 3, 1, 48),
        (323, 3, 1, 48),
        (324, 4, 4, 160),
        (325, 4, 4, 176),
    ]
    page = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    head = (b"II*\0" + struct.pack("<I", 8) + page).ljust(150, b"\0") + struct.pack("<HHH", 8, 8, 8) + bytes(4)
    return head + struct.pack("<4I", *starts) + struct.pack("<4I", *[6912] * 4) + bytes(8) + b"".join(tiles)


def rotated_by_tag(file_format: str) -> bytes:
    exif = Image.Exif()
    exif[274] = 6
    return saved(IMAGE, file_format, exif=exif)


def sixteen_bits_png() -> bytes:
    rows = b"".join(b"\0" + np.repeat(row, 2, axis=-1).tobytes() for row in PATCH)

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", 96, 96, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def sixteen_bits_tiff() -> bytes:
    content = plain_tiff(np.repeat(PATCH, 2, axis=-1))
    changed = content[:128] + content[128:140].replace(b"\x08\0\x08\0\x08\0", b"\x10\0\x10\0\x10\0") + content[140:]
    return changed.replace(b"\x15\x01\x03\0\x01\0\0\0\x06\0", b"\x15\x01\x03\0\x01\0\0\0\x03\0")


def sixteen_bits_bmp() -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, 96, 96, 1, 16, 0, 2 * 96 * 96, 2835, 2835, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 2 * 96 * 96, 0, 0, 54) + header + bytes(2 * 96 * 96)


def half_transparent() -> Image.Image:
    image = IMAGE.convert("RGBA")
    image.putpixel((5, 5), (1, 2, 3, 0))
    return image


EXACT = {
    "Kaggle's TIFF": plain_tiff(PATCH),
    "Pillow's TIFF": saved(IMAGE, "TIFF"),
    "LZW": encoded(PATCH, "tiff"),
    "deflate": saved(IMAGE, "TIFF", compression="tiff_adobe_deflate"),
    "packbits": saved(IMAGE, "TIFF", compression="packbits"),
    "tiles": tiled(),
    "PNG": saved(IMAGE, "PNG"),
    "BMP": saved(IMAGE, "BMP"),
    "WebP without loss": saved(IMAGE, "WEBP", lossless=True),
    "PNG with full opacity": saved(IMAGE.convert("RGBA"), "PNG"),
    "TIFF with full opacity": saved(IMAGE.convert("RGBA"), "TIFF"),
}


@pytest.mark.parametrize("case", EXACT)
def test_an_image_without_loss_gives_its_own_pixels(case):
    assert np.array_equal(Decoder()(EXACT[case]), PATCH)


@pytest.mark.parametrize("options", [{"format": "JPEG"}, {"format": "WEBP"}, {"format": "TIFF", "compression": "jpeg"}])
def test_jpeg_gives_what_pillow_gives(options):
    content = saved(IMAGE, options.pop("format"), **options)
    assert np.array_equal(Decoder()(content), np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))


def test_colours_of_a_palette_are_kept():
    palette = IMAGE.quantize(64)
    assert np.array_equal(Decoder()(saved(palette, "PNG")), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("case", ["PNG", "TIFF"])
def test_an_image_stands_upright_as_its_tag_says(case):
    assert np.array_equal(Decoder()(rotated_by_tag(case)), np.rot90(PATCH, -1))


def test_a_jpeg_stands_upright_as_its_tag_says():
    plain = np.asarray(Image.open(io.BytesIO(saved(IMAGE, "JPEG"))))
    assert np.array_equal(Decoder()(rotated_by_tag("JPEG")), np.rot90(plain, -1))


REFUSED = {
    "grey": (saved(IMAGE.convert("L"), "PNG"), "96x96 L, not 96x96 RGB"),
    "black and white": (saved(IMAGE.convert("1"), "TIFF"), "96x96 1, not"),
    "grey of 16 bits": (saved(Image.fromarray(PATCH[..., 0].astype(np.uint16)), "PNG"), "96x96 I;16, not"),
    "CMYK": (saved(IMAGE.convert("CMYK"), "JPEG"), "96x96 CMYK, not"),
    "wrong size": (saved(IMAGE.resize((95, 96)), "JPEG"), "95x96 RGB, not"),
    "huge": (saved(Image.new("RGB", (9000, 9000)), "PNG"), "9000x9000 RGB, not"),
    "16 bits a channel, PNG": (sixteen_bits_png(), "16 bits a channel, not 8"),
    "16 bits a channel, TIFF": (sixteen_bits_tiff(), "16 bits a channel, not 8"),
    "transparent in part": (saved(half_transparent(), "PNG"), "transparent in part"),
    "BMP of 16 bits": (sixteen_bits_bmp(), "5 bits a channel, not 8"),
    "moving WebP": (saved(IMAGE, "WEBP", save_all=True, append_images=[IMAGE.rotate(90)]), "holds 2 images"),
    "two pages": (saved(IMAGE, "TIFF", save_all=True, append_images=[IMAGE]), "holds 2 images"),
    "two frames": (saved(IMAGE, "PNG", save_all=True, append_images=[IMAGE.rotate(90)]), "holds 2 images"),
    "cut JPEG": (saved(IMAGE, "JPEG")[:-600], "not a whole TIFF, PNG, JPEG, BMP or WebP"),
    "cut TIFF": (plain_tiff(PATCH)[:-1], "not a whole TIFF, PNG, JPEG, BMP or WebP"),
    "cut LZW": (encoded(PATCH, "tiff")[:-2000], "not a whole TIFF, PNG, JPEG, BMP or WebP"),
    "another format": (saved(IMAGE, "GIF"), "not a whole TIFF, PNG, JPEG, BMP or WebP"),
    "empty": (b"", "it is empty"),
    "text": (b"log in", "not a whole TIFF, PNG, JPEG, BMP or WebP"),
    "page": (b"<html>log in</html>", "it is a web page"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_image_that_is_no_patch_is_refused_with_the_reason(case):
    content, reason = REFUSED[case]
    with pytest.raises(PatchError, match=reason):
        Decoder()(content)


@pytest.mark.skipif(not GENUINE.is_dir(), reason="Kaggle's genuine files are not beside this checkout")
def test_genuine_kaggle_files_decode_to_what_pillow_gives():
    decode, paths = Decoder(), sorted(GENUINE.glob("*.tif"))
    assert len(paths) == 18
    for path in paths:
        content = path.read_bytes()
        decoded = decode(content)
        assert decode.frame is not None
        assert decode.frame.matches(content)
        with Image.open(path) as image:
            assert image.mode == "RGB"
            assert np.array_equal(decoded, np.asarray(image))
        assert np.array_equal(decode_with_pillow(content), decoded)
