import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from ssl_inpaint import holes as hole_kinds
from ssl_inpaint import photo_files, photo_holes, photos
from ssl_inpaint.data.sources import decode
from ssl_inpaint.errors import UsageError

WIDTH, HEIGHT = 40, 30
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
BANDS = {"1": 1, "L": 1, "LA": 2, "P": 1, "PA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4, "LAB": 3}

UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored),
}


def _random(shape: tuple[int, ...], low: int = 0, high: int = 256, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, shape, dtype=np.uint8)


def _image(mode: str, colours: int = 40) -> Image.Image:
    """Random pixels in any mode; palettes have fewer colours than 256."""
    if mode == "1":
        return Image.fromarray(_random((HEIGHT, WIDTH)) > 127)
    values = _random((HEIGHT, WIDTH, BANDS[mode]))
    if mode in ("P", "PA"):
        values[..., 0] %= colours
    image = Image.frombytes(mode, (WIDTH, HEIGHT), values.tobytes())
    if mode in ("P", "PA"):
        image.putpalette(_random((colours * 3,), seed=1).tobytes())
    return image


def _save(image: Image.Image, folder: Path, name: str = "", **options: object) -> Path:
    path = folder / (name or ("photo.tif" if image.mode in photos.TIFF_MODES else "photo.png"))
    image.save(path, **options)
    return path


def _hole() -> np.ndarray:
    hole = np.zeros((HEIGHT, WIDTH), dtype=bool)
    hole[5:15, 10:22] = hole[29, 39] = True
    return hole


def _values(image: Image.Image) -> np.ndarray:
    return np.array(image)


def _written(photo: photos.Photo, filled: np.ndarray, hole: np.ndarray, folder: Path, **options: bool) -> Image.Image:
    path = folder / "out" / photo_files.output_names([photo.path])[0]
    photos.write_image(photos.filled_image(photo, filled, hole, **options), path)
    with Image.open(path) as image:
        image.load()
        return image


@pytest.mark.parametrize("mode", BANDS)
def test_visible_pixels_keep_their_values_in_the_mode_of_the_photo(tmp_path: Path, mode: str) -> None:
    image, hole = _image(mode), _hole()
    photo = photos.read_photo(_save(image, tmp_path))
    written = _written(photo, _random((HEIGHT, WIDTH, 3), seed=2), hole, tmp_path)
    assert photo.size == written.size == (WIDTH, HEIGHT) and photo.pixels.shape == (HEIGHT, WIDTH, 3)
    assert written.mode == mode and written.getpalette() == photo.image.getpalette()
    assert np.array_equal(_values(written)[~hole], _values(image)[~hole])
    assert not np.array_equal(_values(written)[hole], _values(image)[hole])


@pytest.mark.parametrize("mode", BANDS)
def test_networks_see_what_data_sets_decode(tmp_path: Path, mode: str) -> None:
    path = _save(_image(mode), tmp_path)
    assert np.array_equal(photos.read_photo(path).pixels, decode(path.read_bytes()))


def test_transparency_of_palettes_lies_on_grey_and_is_kept(tmp_path: Path) -> None:
    for transparency in (3, bytes(range(0, 200, 5))):
        image, hole = _image("P"), _hole()
        path = _save(image, tmp_path, transparency=transparency)
        photo = photos.read_photo(path)
        assert np.array_equal(photo.pixels, decode(path.read_bytes()))
        written = _written(photo, _random((HEIGHT, WIDTH, 3), seed=2), hole, tmp_path)
        assert np.array_equal(_values(written)[~hole], _values(image)[~hole])
        with Image.open(path) as before:
            alphas = [_values(picture.convert("RGBA"))[..., 3] for picture in (before, written)]
        assert np.array_equal(*alphas)  # hidden pixels keep theirs too


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["1", "P", "RGB", "RGBA", "CMYK"])
def test_pixels_are_upright_and_the_tag_is_gone(tmp_path: Path, mode: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x8298] = orientation, "Maker", "Owner"
    exif.get_ifd(0x8769)[0x9003] = "2020:01:02 03:04:05"
    image = _image(mode)
    path = _save(image, tmp_path, exif=exif.tobytes(), icc_profile=ICC, dpi=(72, 144))
    photo = photos.read_photo(path)
    upright = UPRIGHT[orientation](_values(image))
    assert photo.size == upright.shape[1::-1] and np.array_equal(photo.pixels, decode(path.read_bytes()))
    hole = np.zeros(upright.shape[:2], dtype=bool)
    hole[3:9, 5:12] = True
    written = _written(photo, _random((*hole.shape, 3), seed=2), hole, tmp_path)
    assert np.array_equal(_values(written)[~hole], upright[~hole])
    kept = written.getexif()
    assert kept.get(0x0112, 1) == 1 and kept[0x010F] == "Maker" and kept[0x8298] == "Owner"
    assert kept.get_ifd(0x8769)[0x9003] == "2020:01:02 03:04:05"
    assert written.info["icc_profile"] == ICC
    if mode != "CMYK":  # Pillow turns TIFFs by itself, and not their dpi
        # PNG counts pixels a metre.
        assert written.info["dpi"] == pytest.approx((144, 72) if orientation >= 5 else (72, 144), abs=0.1)


def test_jpegs_become_png_without_another_loss(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x0110] = 6, "Camera"
    path = _save(_image("RGB"), tmp_path, "photo.jpg", exif=exif, quality=30, dpi=(300, 300), icc_profile=ICC)
    photo, hole = photos.read_photo(path), _hole().T
    written = _written(photo, _random((WIDTH, HEIGHT, 3), seed=2), hole, tmp_path)
    assert photo_files.output_names([path]) == ["photo.png"]
    assert np.array_equal(_values(written)[~hole], decode(path.read_bytes())[~hole])
    assert written.getexif()[0x0110] == "Camera" and 0x0112 not in written.getexif()
    assert written.info["icc_profile"] == ICC


def test_tiffs_keep_what_describes_them_and_not_how_they_were_stored(tmp_path: Path) -> None:
    path = _save(_image("RGB"), tmp_path, "photo.tif", description="a view", compression="tiff_lzw", dpi=(200, 200))
    written = _written(photos.read_photo(path), _random((HEIGHT, WIDTH, 3)), _hole(), tmp_path)
    assert written.getexif()[270] == "a view"
    assert not set(written.getexif()) & set(photos.STORAGE_TAGS)
    cmyk = _save(_image("CMYK"), tmp_path, "cmyk.tif", description="a print", compression="tiff_lzw")
    again = _written(photos.read_photo(cmyk), _random((HEIGHT, WIDTH, 3)), _hole(), tmp_path)
    assert again.getexif()[270] == "a print" and again.mode == "CMYK"


def test_broken_metadata_do_not_make_a_photo_unreadable(tmp_path: Path) -> None:
    path = _save(_image("RGB"), tmp_path, exif=b"Exif\0\0nonsense")
    photo = photos.read_photo(path)
    assert np.array_equal(photo.pixels, _values(_image("RGB")))
    _written(photo, photo.pixels, _hole(), tmp_path)


def test_hidden_pixels_become_the_nearest_that_the_mode_has(tmp_path: Path) -> None:
    hole, filled = _hole(), _random((HEIGHT, WIDTH, 3), seed=2)
    results = {
        mode: photos.filled_image(photos.read_photo(_save(_image(mode), tmp_path)), filled, hole) for mode in BANDS
    }
    luma = _values(Image.fromarray(filled).convert("L"))
    assert np.array_equal(_values(results["RGB"])[hole], filled[hole])
    assert np.array_equal(_values(results["RGBA"])[hole][:, :3], filled[hole])
    assert np.array_equal(_values(results["L"])[hole], luma[hole])
    assert np.array_equal(_values(results["LA"])[hole][:, 0], luma[hole])
    assert np.array_equal(_values(results["1"])[hole], luma[hole] >= 128)
    assert np.array_equal(_values(results["CMYK"].convert("RGB"))[hole], filled[hole])
    # LAB of 8 bits holds sRGB to a few levels.
    lab = _values(results["LAB"].convert("RGB"))[hole].astype(int)
    assert np.abs(lab - filled[hole]).mean() < 4
    palette = np.array(_image("P").getpalette()).reshape(-1, 3)
    nearest = np.square(filled[hole][:, None].astype(int) - palette).sum(axis=2).min(axis=1)
    for mode in ("P", "PA"):
        index = _values(results[mode]).reshape(HEIGHT, WIDTH, -1)[..., 0][hole]
        assert np.array_equal(np.square(filled[hole].astype(int) - palette[index]).sum(axis=1), nearest)


@pytest.mark.parametrize("mode", ["LA", "PA", "RGBA"])
def test_alpha_stays_but_erased_pixels_become_opaque(tmp_path: Path, mode: str) -> None:
    values = _values(_image(mode)).copy()
    values[..., -1] = np.maximum(values[..., -1], 1)
    values[_hole(), -1] = 0
    image = Image.frombytes(mode, (WIDTH, HEIGHT), values.tobytes())
    if mode == "PA":
        image.putpalette(_random((120,), seed=1).tobytes())
    photo = photos.read_photo(_save(image, tmp_path))
    hole = photo_holes.hole_of_alpha(photo)
    assert np.array_equal(hole, _hole())
    erased = _values(_written(photo, _random((HEIGHT, WIDTH, 3)), hole, tmp_path, is_erased=True))
    assert (erased[hole][:, -1] == 255).all() and np.array_equal(erased[~hole], values[~hole])
    assert np.array_equal(_values(photos.filled_image(photo, photo.pixels, hole))[..., -1], values[..., -1])


def test_erased_pixels_of_a_palette_get_its_opaque_colours(tmp_path: Path) -> None:
    image = _image("P")
    values = _values(image).copy()
    values[_hole()] = 7
    indexed = Image.frombytes("P", image.size, values.tobytes())
    indexed.putpalette(image.getpalette())
    photo = photos.read_photo(_save(indexed, tmp_path, transparency=7))
    hole = photo_holes.hole_of_alpha(photo)
    colour = np.broadcast_to(np.array(image.getpalette()[21:24], np.uint8), (HEIGHT, WIDTH, 3))
    written = _written(photo, colour, hole, tmp_path, is_erased=True)  # the transparent colour itself is the nearest
    assert (_values(written.convert("RGBA"))[hole][:, 3] == 255).all()
    assert np.array_equal(_values(written)[~hole], values[~hole])


@pytest.mark.parametrize(("mode", "key", "kept"), [("RGB", (1, 2, 3), "RGBA"), ("L", 9, "LA")])
def test_a_colour_marked_transparent_becomes_a_channel(tmp_path: Path, mode: str, key: object, kept: str) -> None:
    image = _image(mode)
    values = _values(image).copy()
    values[values == 9] = 8  # no other pixel may have it
    values[_hole()] = key
    photo = photos.read_photo(_save(Image.fromarray(values), tmp_path, transparency=key))
    hole = photo_holes.hole_of_alpha(photo)
    assert photo.image.mode == kept and np.array_equal(hole, _hole())
    filled = np.full((HEIGHT, WIDTH, 3), key, np.uint8)
    written = _values(_written(photo, filled, hole, tmp_path, is_erased=True))
    assert (written[..., -1] == 255).all()
    assert np.array_equal(written[~hole][:, :-1].squeeze(), values[~hole])


def test_gifs_and_bitmaps_are_photos_too(tmp_path: Path) -> None:
    for name in ("photo.gif", "photo.bmp", "photo.webp", "photo.ppm", "photo.tif"):
        path = _save(_image("P").convert("RGB"), tmp_path, name)
        photo = photos.read_photo(path)
        written = _written(photo, photo.pixels, _hole(), tmp_path)
        assert np.array_equal(_values(written.convert("RGB")), decode(path.read_bytes()))


def test_previews_in_a_phone_s_jpeg_are_no_animation(tmp_path: Path) -> None:
    path = _save(_image("RGB"), tmp_path, "phone.jpg", format="MPO", save_all=True, append_images=[_image("RGB")])
    assert photos.read_photo(path).size == (WIDTH, HEIGHT)


def test_what_is_not_one_photo_of_eight_bits_is_refused_in_a_sentence(tmp_path: Path) -> None:
    good = _save(_image("RGB"), tmp_path)
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:-2000])
    jpeg = _save(_image("RGB"), tmp_path, "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes(jpeg.read_bytes()[:-300])
    _save(_image("RGB").resize((15, 200)), tmp_path, "small.png")
    others = [_image("RGB").point(lambda value, k=k: value // k) for k in (2, 3)]
    for name in ("moving.gif", "moving.png", "moving.webp", "pages.tif"):
        _save(_image("RGB"), tmp_path, name, save_all=True, append_images=others)
    cases = {
        "none.png": "none.png does not exist: give the path of an image file.",
        "": "cannot be read (Is a directory): give a whole image file.",
        "text.png": "text.png is no image, or of an unknown format: give a JPEG, PNG, TIFF or the like.",
        "empty.png": "empty.png is no image",
        "cut.png": "cut.png cannot be read (",
        "cut.jpg": "cut.jpg cannot be read (image file is truncated",
        "small.png": "small.png has 15 x 200 pixels: the least is 16 a side.",
        **{
            name: f"{name} has 3 frames or pages, where one is needed: save one of them as a file."
            for name in ("moving.gif", "moving.png", "moving.webp", "pages.tif")
        },
    }
    for name, sentence in cases.items():
        with pytest.raises(UsageError, match=re.escape(sentence)):
            photos.read_photo(tmp_path / name)


def test_more_than_eight_bits_are_refused_even_where_pillow_would_cut_them(tmp_path: Path) -> None:
    import cv2

    deep = np.random.default_rng(0).integers(0, 65536, (64, 64, 3), dtype=np.uint16)
    for name in ("c.png", "c.tif", "c.ppm", "c.jp2"):
        assert cv2.imwrite(str(tmp_path / name), deep)
        assert cv2.imwrite(str(tmp_path / f"g{name}".replace("ppm", "pgm")), deep[..., 0])
    cv2.imwrite(str(tmp_path / "a.png"), np.concatenate([deep, deep[..., :1]], axis=2))
    Image.fromarray(deep[..., 0].astype(np.float32)).save(tmp_path / "float.tif")
    Image.fromarray(deep[..., 0].astype(np.int32)).save(tmp_path / "int.tif")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 11
    for name in names:
        bits = 32 if name in ("float.tif", "int.tif") else 16
        with pytest.raises(UsageError, match=f"{name} has {bits} bits a channel, where 8 are needed"):
            photos.read_photo(tmp_path / name)
    _save(_image("RGB"), tmp_path, "eight.jp2", irreversible=False)
    assert np.array_equal(photos.read_photo(tmp_path / "eight.jp2").pixels, _values(_image("RGB")))


def test_decompression_bombs_are_refused_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _save(_image("RGB"), tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(UsageError, match="has more than 1,000 pixels, which are the most: make it smaller"):
        photos.read_photo(path)


def test_holes_of_alpha_need_transparent_and_visible_pixels(tmp_path: Path) -> None:
    for alpha, image, sentence in (
        (None, _image("RGB"), "has no transparency: erase what is to be filled, or give a box or a mask."),
        (1, _image("RGBA"), "has no fully transparent pixel: erase what is to be filled, or give a mask."),
        (0, _image("RGBA"), "is fully transparent: there is nothing to fill it from."),
    ):
        if alpha is not None:
            image.putalpha(alpha)
        with pytest.raises(UsageError, match=re.escape(sentence)):
            photo_holes.hole_of_alpha(photos.read_photo(_save(image, tmp_path)))


def _mask() -> Image.Image:
    return Image.fromarray(np.where(_hole(), 255, 0).astype(np.uint8))


def test_white_is_hidden_in_masks_of_every_kind(tmp_path: Path) -> None:
    mask, hole = _mask(), _hole()
    painted = Image.new("RGBA", mask.size, (0, 0, 0, 0))
    painted.paste((255, 255, 255, 255), mask=mask)
    white = Image.new("LA", mask.size, (255, 0))
    white.putalpha(mask)
    unseen = mask.convert("LA")
    unseen.putalpha(0)  # transparent everywhere: that says nothing
    deep = Image.fromarray(np.where(hole, 40000, 25000).astype(np.uint16))
    palette = mask.point(lambda value: value // 255).convert("L")
    indexed = Image.frombytes("P", mask.size, palette.tobytes())
    indexed.putpalette([0, 0, 0, 255, 255, 255])
    kinds = [mask, mask.convert("1"), mask.convert("RGB"), mask.convert("P"), indexed, painted, white, unseen, deep]
    for number, kind in enumerate(kinds):
        path = _save(kind, tmp_path, f"{number}.png")
        assert np.array_equal(photo_holes.read_hole(path, (WIDTH, HEIGHT)), hole), number
    float_path = _save(Image.fromarray(hole.astype(np.float32)), tmp_path, "float.tif")
    assert np.array_equal(photo_holes.read_hole(float_path, (WIDTH, HEIGHT)), hole)
    grey = _save(mask.point(lambda value: 128 if value else 127), tmp_path, "grey.png")
    assert np.array_equal(photo_holes.read_hole(grey, (WIDTH, HEIGHT)), hole)


def test_masks_are_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = _save(_mask(), tmp_path, exif=exif)
    assert np.array_equal(photo_holes.read_hole(path, (HEIGHT, WIDTH)), np.rot90(_hole(), -1))


def test_masks_of_another_size_are_refused_or_stretched(tmp_path: Path) -> None:
    path = _save(_mask(), tmp_path, "m.png")
    sentence = "m.png has 40 x 30 pixels, the image 80 x 60: make them the same size, or stretch the mask with --resize"
    with pytest.raises(UsageError, match=sentence):
        photo_holes.read_hole(path, (80, 60))
    with pytest.raises(UsageError, match="Photos are turned upright by their EXIF orientation"):
        photo_holes.read_hole(path, (30, 40))
    doubled = photo_holes.read_hole(path, (80, 60), resize=True)
    assert np.array_equal(doubled, np.kron(_hole(), np.ones((2, 2))) > 0)
    smaller = photo_holes.read_hole(path, (10, 10), resize=True)
    assert np.array_equal(smaller, _hole().reshape(10, 3, 10, 4).any(axis=(1, 3)))


def test_masks_that_hide_nothing_or_everything_are_refused(tmp_path: Path) -> None:
    labels = _save(_mask().point(lambda value: value // 255), tmp_path, "labels.png")
    with pytest.raises(UsageError, match=r"labels\.png hides nothing, its brightest value is 1: "):
        photo_holes.read_hole(labels, (WIDTH, HEIGHT))
    white = _save(Image.new("L", (WIDTH, HEIGHT), 255), tmp_path, "white.png")
    with pytest.raises(UsageError, match=r"white\.png hides everything: leave black what is to be kept"):
        photo_holes.read_hole(white, (WIDTH, HEIGHT))
    dotted = _save(Image.fromarray(np.indices((HEIGHT, WIDTH)).sum(0) % 2 == 0), tmp_path, "dots.png")
    with pytest.raises(UsageError, match=r"dots\.png hides everything at 20 x 15 pixels"):
        photo_holes.read_hole(dotted, (20, 15), resize=True)
    with pytest.raises(UsageError, match=r"none\.png does not exist"):
        photo_holes.read_hole(tmp_path / "none.png", (20, 15))


def test_boxes_are_pixels_of_the_upright_image() -> None:
    hole = photo_holes.box_hole(40, 30, "3,4, 10,5")
    assert hole.shape == (30, 40) and hole.sum() == 50 and hole[4:9, 3:13].all()
    assert photo_holes.box_hole(40, 30, "0,0,40,29").sum() == 40 * 29
    for box, sentence in {
        "1,2,3": "The box '1,2,3' is not X,Y,WIDTH,HEIGHT in whole pixels: write for example 10,20,64,48.",
        "1,2,3,x": "The box '1,2,3,x' is not X,Y,WIDTH,HEIGHT",
        "1,2,0,5": "The box 1,2,0,5 is empty: its width and height must be at least 1.",
        "35,2,6,5": "The box 35,2,6,5 reaches outside the image of 40 x 30 pixels: move or shrink it.",
        "-1,2,6,5": "The box -1,2,6,5 reaches outside the image of 40 x 30 pixels",
        "0,0,40,30": "The box 0,0,40,30 covers the whole image of 40 x 30 pixels: make it smaller.",
    }.items():
        with pytest.raises(UsageError, match=re.escape(sentence)):
            photo_holes.box_hole(40, 30, box)


def test_the_central_hole_is_that_of_training_on_squares() -> None:
    import torch

    for size in (16, 31, 64, 99):
        for fraction in (0.01, 0.25, 0.4, 0.9):
            drawn = hole_kinds.draw("centre", 1, size, torch.Generator(), fraction)[0, 0].numpy()
            assert np.array_equal(photo_holes.centre_hole(size, size, fraction), drawn)
    wide = photo_holes.centre_hole(500, 40)
    assert wide.sum() == 400 and wide[10:30, 240:260].all()
    for fraction in (0.0, 0.95, float("nan")):
        with pytest.raises(UsageError, match=r"it must be above 0 and at most 0\.9"):
            photo_holes.centre_hole(40, 40, fraction)


def test_no_two_photos_are_written_to_one_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    names = ("a.jpg", "a.png", "b.jpg", "B.png", "c.jpg", "sub/a.jpg", "d.png", "d.png.png", "d.jpg")
    paths = [_save(_image("RGB"), tmp_path, name) for name in names]
    paths.append(_save(_image("CMYK"), tmp_path, "e.jpg"))
    expected = ["a.jpg.png", "a.png.png", "b.jpg.png", "B.png.png", "c.png", "sub/a.png"]
    expected += ["d.png.png", "d.png.png.png", "d.jpg.png", "e.tif"]
    assert photo_files.output_names(paths, tmp_path) == expected
    same = [tmp_path / "a.jpg", tmp_path / "sub/a.jpg"]
    assert photo_files.output_names(same) == ["a.jpg.png", "a.jpg-2.png"]
    assert photo_files.output_names([same[0]]) == ["a.png"]
    (tmp_path / "broken.png").write_text("no image")
    with pytest.raises(UsageError, match="is no image"):
        photo_files.output_names([tmp_path / "broken.png"])


def test_a_file_is_never_left_half_and_its_suffix_says_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"an image of mode CMYK is written as \.tif"):
        photos.write_image(_image("CMYK"), tmp_path / "a.png")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="Cannot write"):
        photos.write_image(_image("RGB"), tmp_path / "file" / "a.png")
    photos.write_image(_image("RGB"), tmp_path / "new" / "a.png")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]


def test_photos_are_a_file_or_all_below_a_folder(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / ".hidden").mkdir()
    for name in ("b.png", "sub/a.png", ".hidden/c.png", ".d.png"):
        _save(_image("L"), tmp_path, name)
    (tmp_path / "notes.txt").write_text("")
    assert photo_files.find_photos(tmp_path) == [tmp_path / "b.png", tmp_path / "sub" / "a.png"]
    assert photo_files.find_photos(tmp_path / "b.png") == [tmp_path / "b.png"]
    (tmp_path / "empty").mkdir()
    for name, sentence in (("empty", "holds no images: choose a folder"), ("none", "does not exist: give an image")):
        with pytest.raises(UsageError, match=sentence):
            photo_files.find_photos(tmp_path / name)


def test_each_photo_finds_its_mask_by_name(tmp_path: Path) -> None:
    for name in ("p/a.jpg", "p/a.png", "p/sub/b.jpg", "m/a.jpg.png", "m/a.png", "m/sub/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        _save(_image("L"), tmp_path, name)
    root, masks = tmp_path / "p", tmp_path / "m"
    found = photo_files.masks_of(masks, photo_files.find_photos(root), root)
    assert [path.relative_to(masks).as_posix() for path in found] == ["a.jpg.png", "a.png", "sub/b.png"]
    assert photo_files.masks_of(masks, [root / "a.png"]) == [masks / "a.png"]
    with pytest.raises(UsageError, match=r"2 of 3 photos have no mask in .*: c\.jpg, d\.jpg\. Add .* such as c\.png"):
        photo_files.masks_of(masks, [root / name for name in ("c.jpg", "a.jpg", "d.jpg")], root)
    _save(_image("L"), masks, "a.bmp")
    with pytest.raises(UsageError, match=r"several masks for one photo, a\.bmp and a\.png: keep one of each"):
        photo_files.masks_of(masks, [root / "a.png"], root)
    with pytest.raises(UsageError, match="is no folder"):
        photo_files.masks_of(masks / "a.png", [root / "a.png"], root)
