"""Whole inpainting verbs on tiny data: photographs filled, inpainters compared, and what either refuses."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch import Tensor

from ssl_inpaint import checkpoint, config, inpainting_metrics, records, runlog, tables, windows
from ssl_inpaint.bootstrap import Scores
from ssl_inpaint.cli import main
from ssl_inpaint.data import shapes
from ssl_inpaint.data.specs import open_data
from ssl_inpaint.data.store import open_store
from ssl_inpaint.errors import UsageError
from ssl_inpaint.experiment import contenders, evaluation, filling, pretrain, squares
from ssl_inpaint.experiment.generators import open_generator
from ssl_inpaint.experiment.inpainters import Named, open_inpainters
from ssl_inpaint.images import IMAGENET_MEAN, to_float
from ssl_inpaint.plans import EvaluationPlan
from ssl_inpaint.records import Ledger, Record
from ssl_inpaint.runtime import Runtime

CPU = Runtime(torch.device("cpu"), is_bf16=False)
SIZE = 64
WHOLE = {"size": str(SIZE), "store_size": str(SIZE), "smallest_share": "1", "largest_share": "1"}
TRAIN = {"steps": "2", "batch_size": "4"}
Settings = Mapping[str, Mapping[str, str]]


@pytest.fixture(scope="module", autouse=True)
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder for the whole module, with small data and runs in it."""
    folder = tmp_path_factory.mktemp("desk")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_INPAINT_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        shapes.make_shapes(Path("shapes"), shapes.Config(train=10, val=2, test=4))
        for name, seed in (("pictures", 0), ("others", 1)):
            put_pictures(Path(name), 6, seed)
        yield folder


@pytest.fixture(scope="module")
def joint(desk: Path) -> str:
    """A run that predicts the middle only: 28 of 64 pixels a side, and 4 around them."""
    small = {"bottleneck_units": "8", "decoder_channels": "8,8,8", "discriminator_channels": "4"}
    fast = {**TRAIN, "sample_every_steps": "1", "learning_rate": "0.05"}  # two looks, which differ
    settings = {"pretext": small, "encoder": {"channels": "4,4,8,8,8"}, "crops": WHOLE, "train": fast}
    return run(Path("runs/joint"), "shapes:shapes", "compact_joint", settings)


@pytest.fixture(scope="module")
def region(desk: Path) -> str:
    """A run that fills holes anywhere, trained on the folder of pictures."""
    return run(Path("runs/region"), "folder:pictures", "compact", narrow())


@pytest.fixture(scope="module")
def second(desk: Path) -> str:
    """Another run of the same method, in a folder of the same name."""
    return run(Path("more/region"), "folder:others", "compact", narrow())


def narrow() -> Settings:
    decoder = {"decoder_channels": "8,8,8", "holes": "region"}
    return {"pretext": decoder, "encoder": {"channels": "8,8,8,8,8"}, "crops": WHOLE, "train": TRAIN}


def run(folder: Path, spec: str, recipe: str, settings: Settings) -> str:
    pretrain.pretrain(pretrain.plan_pretraining(spec, "inpainting", recipe, None, settings, 0), folder, CPU)
    return str(folder)


def picture(size: tuple[int, int], seed: int) -> np.ndarray:
    """Smooth colours with some noise, H x W x 3."""
    width, height = size
    generator = np.random.default_rng(seed)
    rough = Image.fromarray(generator.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return np.array(rough.resize(size, Image.Resampling.BICUBIC)) // 2 + generator.integers(
        0, 64, (height, width, 3), dtype=np.uint8
    )


def put_pictures(folder: Path, count: int, seed: int = 0) -> None:
    folder.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(picture((SIZE, SIZE), 100 * seed + i)).save(folder / f"{i}.png")


def put_mask(path: Path, size: tuple[int, int], box: tuple[int, int, int, int], value: int = 255) -> np.ndarray:
    """A mask that is white in the box x, y, width, height; returns it as H x W bool."""
    hole = np.zeros((size[1], size[0]), np.uint8)
    x, y, width, height = box
    hole[y : y + height, x : x + width] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(hole).save(path)
    return hole > 0


def type_in(line: str) -> Result:
    found = CliRunner().invoke(main, shlex.split(line))
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found


def done(line: str) -> Result:
    found = type_in(line)
    assert found.exit_code == 0, found.stderr
    return found


def refused(line: str) -> str:
    """The one sentence of a refusal: exit code 2, nothing on stdout, nothing left behind."""
    before = sorted(Path().rglob("*"))
    found = type_in(line)
    assert found.exit_code == 2 and not found.stdout
    assert found.stderr.startswith("Error: ") and found.stderr.count("\n") == 1 and "Traceback" not in found.stderr
    assert [path for path in sorted(Path().rglob("*")) if path not in before and "cache" not in path.parts] == []
    return found.stderr


# Filling photographs


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_visible_pixels_are_kept_bit_for_bit_in_the_mode_of_the_photo(mode: str, region: str, tmp_path: Path) -> None:
    suffix = "tif" if mode == "CMYK" else "png"
    before = Image.fromarray(picture((90, 70), 3)).convert(mode)
    before.save(tmp_path / f"photo.{suffix}")
    hole = put_mask(tmp_path / "mask.png", (90, 70), (20, 15, 40, 30))
    line = f"inpaint {tmp_path}/photo.{suffix} --with {region} --hole {tmp_path}/mask.png --blend"
    out = done(f"{line} --output {tmp_path}/run")
    path = tmp_path / "run" / "filled" / f"photo.{suffix}"
    assert out.stdout == f"{path}\nfigure      {tmp_path}/run/before_after.png\n"
    with Image.open(path) as after:
        assert (after.mode, after.size) == (mode, (90, 70))
        pixels = [np.array(image).reshape(70, 90, -1) for image in (before, after)]
    assert np.array_equal(pixels[0][~hole], pixels[1][~hole]) and not np.array_equal(pixels[0][hole], pixels[1][hole])


@pytest.mark.parametrize(
    "inpainter", ["mean_colour", "telea", "navier_stokes", "shift_map", "nearest:hog", "nearest:RUN", "RUN", "JOINT"]
)
def test_photos_that_differ_only_in_the_hole_give_the_same_file(
    inpainter: str, region: str, joint: str, tmp_path: Path
) -> None:
    box, filled = (30, 10, 50, 44), []
    hole = put_mask(tmp_path / "mask.png", (120, 80), box)
    seen = picture((120, 80), 5)
    source = inpainter.replace("RUN", region).replace("JOINT", joint)
    gallery = "--gallery folder:others --set filling.size=64" if "nearest" in inpainter else ""
    for number, poison in enumerate((picture((120, 80), 6), np.full((80, 120, 3), 255, np.uint8))):
        (tmp_path / str(number)).mkdir()
        Image.fromarray(np.where(hole[..., None], poison, seen)).save(tmp_path / str(number) / "photo.png")
        line = f"inpaint {tmp_path}/{number}/photo.png --with {source} --hole {tmp_path}/mask.png {gallery} --blend"
        done(f"{line} --output {tmp_path}/run{number}")
        filled.append((tmp_path / f"run{number}" / "filled" / "photo.png").read_bytes())
    assert filled[0] == filled[1]


def test_a_photo_in_the_gallery_does_not_find_itself(tmp_path: Path) -> None:
    shutil.copytree("others", tmp_path / "gallery")
    line = f"inpaint {tmp_path}/gallery/2.png --with nearest --set filling.size=64 --gallery folder:{tmp_path}/gallery"
    found = done(f"{line} --output {tmp_path}/with")
    assert "1 of the 6 images of the gallery" in found.stderr
    (tmp_path / "gallery" / "2.png").rename(tmp_path / "2.png")
    apart = line.replace("gallery/2.png", "2.png")
    assert "of the gallery" not in done(f"{apart} --output {tmp_path}/without").stderr
    written = [(tmp_path / name / "filled" / "2.png").read_bytes() for name in ("with", "without")]
    assert written[0] == written[1] != (tmp_path / "2.png").read_bytes()


def test_a_photo_stands_upright_before_its_hole_is_cut(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter to the right
    exif[0x010F] = "Maker"
    stored = picture((80, 50), 1)
    Image.fromarray(stored).save(tmp_path / "photo.png", exif=exif)
    done(f"inpaint {tmp_path}/photo.png --with mean_colour --hole box:5,60,20,15 --output {tmp_path}/run")
    with Image.open(tmp_path / "run" / "filled" / "photo.png") as after:
        assert after.size == (50, 80) and dict(after.getexif()) == {0x010F: "Maker"}
        pixels = np.array(after)
    hole = np.zeros((80, 50), bool)
    hole[60:75, 5:25] = True
    assert np.array_equal(pixels[~hole], np.rot90(stored, -1)[~hole])
    assert (pixels[hole] == np.rint(255 * np.array(IMAGENET_MEAN))).all()


def test_what_was_erased_is_filled_and_opaque(tmp_path: Path) -> None:
    pixels = np.dstack([picture((60, 40), 2), np.full((40, 60), 255, np.uint8)])
    pixels[10:20, 10:30, 3] = 0
    pixels[30:35, 40:50, 3] = 128  # half seen: no hole
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    done(f"inpaint {tmp_path}/photo.png --with telea --hole alpha --output {tmp_path}/run")
    after = np.array(Image.open(tmp_path / "run" / "filled" / "photo.png"))
    hole = pixels[..., 3] == 0
    assert (after[hole][:, 3] == 255).all() and np.array_equal(after[~hole], pixels[~hole])


def test_a_folder_is_filled_but_for_what_cannot_be(region: str, tmp_path: Path) -> None:
    """The masks may lie among the photographs; names of folders are kept."""
    photos = tmp_path / "photos"
    for name, size in (("a.jpg", (90, 70)), ("trip/day 1/b.png", (40, 120)), ("trip/wide.png", (300, 40))):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(size, 4)).save(photos / name)
        put_mask((photos / "masks" / name).with_suffix(".png"), size, (4, 6, 12, 20))
    (photos / "half.jpg").write_bytes((photos / "a.jpg").read_bytes()[:900])
    (photos / "words.jpg").write_text("words")
    Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)).save(photos / "deep.png")
    frames = [Image.fromarray(picture((64, 64), i)) for i in range(2)]
    frames[0].save(photos / "moving.gif", save_all=True, append_images=frames[1:])
    Image.fromarray(picture((60, 60), 4)).save(photos / "fits not.png")
    for name in ("half", "words", "deep", "moving", "fits not"):
        put_mask(photos / "masks" / f"{name}.png", (64, 64), (10, 10, 10, 10))
    found = type_in(f"inpaint '{photos}' --with {region} --hole '{photos}/masks' --output {tmp_path}/run")
    written = [f"{tmp_path}/run/filled/{name}" for name in ("a.png", "trip/day 1/b.png", "trip/wide.png")]
    assert found.exit_code == 1 and found.stdout.splitlines()[:-1] == written
    assert sorted(str(path) for path in (tmp_path / "run" / "filled").rglob("*.*")) == written
    first, *sentences = found.stderr.splitlines()
    assert first == "5 could not be filled:"
    for name, reason in (
        ("words.jpg", "is no image"),
        ("half.jpg", "cannot be read"),
        ("deep.png", "16 bits"),
        ("moving.gif", "2 frames"),
        ("fits not.png", "64 x 64 pixels, the image 60 x 60"),
    ):
        assert sum(name in sentence and reason in sentence for sentence in sentences) == 1, name
    assert Image.open(tmp_path / "run" / "before_after.png").width > 100


def test_where_nothing_can_be_filled_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("a", "b"):
        Image.fromarray(picture((20, 24), 4)).save(tmp_path / "photos" / f"{name}.png")
    line = f"inpaint {tmp_path}/photos --with shift_map --output {tmp_path}/run"
    assert "No photograph can be filled. Images of 24 x 20 pixels leave" in refused(line)
    (tmp_path / "photos" / "b.png").unlink()
    assert refused(line).startswith("Error: Images of 24 x 20 pixels leave")
    (tmp_path / "photos" / "a.png").write_text("words")
    assert "a.png is no image" in refused(line)
    assert not (tmp_path / "run").exists()


def test_blending_leaves_no_seam(tmp_path: Path) -> None:
    bright = np.clip(picture((80, 80), 7).astype(int) + 120, 0, 255).astype(np.uint8)
    Image.fromarray(bright).save(tmp_path / "photo.png")
    line, steps = f"inpaint {tmp_path}/photo.png --with mean_colour --hole box:20,20,40,40", []
    for name, option in (("plain", ""), ("blended", "--blend")):
        done(f"{line} {option} --output {tmp_path}/{name}")
        after = np.array(Image.open(tmp_path / name / "filled" / "photo.png")).astype(int)
        steps.append(np.abs(after[20, 20:60] - after[19, 20:60]).mean())
    assert steps[1] < 0.25 * steps[0]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("nowhere.jpg --with telea", "nowhere.jpg does not exist"),
        ("pictures/0.png", "0 inpainters are named"),
        ("pictures/0.png --with telea --with shift_map", "2 inpainters are named"),
        ("pictures/0.png --with tela", "Did you mean 'telea'?"),
        ("pictures/0.png --with runs/nowhere", "no inpainting network at 'runs/nowhere'"),
        ("pictures/0.png --with RUN/encoder.safetensors", "holds an encoder without what follows it"),
        ("pictures/0.png --with telea --hole center", "There is no hole 'center'"),
        ("pictures/0.png --with telea --hole box:1,2,3", "X,Y,WIDTH,HEIGHT in whole pixels"),
        ("pictures/0.png --with telea --hole box:60,0,10,10", "outside the image of 64 x 64"),
        ("pictures/0.png --with telea --hole box:0,0,64,64", "covers the whole image"),
        ("pictures/0.png --with telea --hole alpha", "has no transparency"),
        ("pictures/0.png --with telea --hole masks/white.png", "hides everything"),
        ("pictures/0.png --with telea --hole masks/black.png", "hides nothing, its brightest value is 0"),
        ("pictures/0.png --with telea --hole masks/large.png", "has 80 x 60 pixels, the image 64 x 64"),
        ("pictures/0.png --with telea --hole masks/large.png", "--resize-mask"),
        ("pictures --with telea --hole masks", "6 of 6 photos have no mask in masks"),
        ("pictures/0.png --with telea --hole box:1,1,9,9 --resize-mask", "--resize-mask is for masks"),
        ("pictures/0.png --with telea --gallery folder:others", "leave it out"),
        ("pictures/0.png --with telea --set data.val_fraction=0.2", "--gallery, and there is none"),
        ("pictures/0.png --with nearest:hog", "name a data set by --gallery"),
        ("pictures/0.png --with nearest:hgo --gallery folder:others", "Did you mean 'hog'?"),
        ("pictures/0.png --with nearest:RUN@conv55 --gallery folder:others", "Did you mean 'conv5'?"),
        ("pictures/0.png --with telea --set telea.radius=5", "Did you mean 'radius_pixels'?"),
        ("pictures/0.png --with telea --set telea.radius_pixels=0", "greater than or equal to 1"),
        ("pictures/0.png --with telea --set shift_map.window_pixels=99", "shift_map.window_pixels changes nothing"),
        ("pictures/0.png --with telea --set encoder.channels=1", "encoder.channels changes nothing"),
        ("pictures/0.png --with telea --set fillng.size=64", "Did you mean 'filling'?"),
        ("pictures/0.png --with telea --set filling.images=5", "There is no filling setting 'images'"),
        ("pictures/0.png --with telea --set filling.hole_fraction=0.95", "less than or equal to 0.9"),
        ("pictures/0.png --with telea --output pictures", "holds no run of this suite"),
    ],
)
def test_bad_input_to_filling_gets_a_sentence(line: str, sentence: str, region: str, desk: Path) -> None:
    put_mask(desk / "masks" / "white.png", (64, 64), (0, 0, 64, 64))
    put_mask(desk / "masks" / "black.png", (64, 64), (0, 0, 0, 0))
    put_mask(desk / "masks" / "large.png", (80, 60), (10, 10, 20, 20))
    assert sentence in refused(f"inpaint {line.replace('RUN', region)}")


def test_a_mask_of_another_size_is_stretched_where_that_is_asked_for(tmp_path: Path) -> None:
    put_mask(tmp_path / "mask.png", (32, 32), (8, 8, 10, 4))
    line = f"inpaint pictures/0.png --with mean_colour --hole {tmp_path}/mask.png --resize-mask --output {tmp_path}/run"
    done(line)
    before, after = (np.array(Image.open(path)) for path in ("pictures/0.png", tmp_path / "run" / "filled" / "0.png"))
    changed = (before != after).any(axis=2)
    assert not changed[:16].any() and not changed[24:].any() and changed[16:24, 16:36].mean() > 0.9


def test_a_stopped_filling_begins_anew_and_a_finished_one_stays(tmp_path: Path) -> None:
    plan = partial(filling.plan_filling, "pictures", "telea", settings={}, seed=0, gallery=None)
    first = filling.fill(plan(hole="centre"), tmp_path / "run", CPU)
    before = [path.read_bytes() for path in first.written]
    with pytest.raises(UsageError, match="holds a finished run"):
        filling.fill(plan(hole="centre"), tmp_path / "run", CPU)
    first.figure.unlink()  # it is written last
    first.written[-1].unlink()
    with pytest.raises(UsageError, match="holds another run"):
        filling.fill(plan(hole="box:1,1,9,9"), tmp_path / "run", CPU)
    again = filling.fill(plan(hole="centre"), tmp_path / "run", CPU)
    assert [path.read_bytes() for path in again.written] == before and again.figure.exists()


# Comparing inpainters

SMALL = {"size": str(SIZE), "images": "4", "has_others": "false"}


def plan_of(
    data: str,
    *inpainters: str,
    hole: str | None = None,
    gallery_spec: str | None = None,
    seed: int = 0,
    settings: Settings | None = None,
    **fields: str,
) -> EvaluationPlan:
    merged = {**(settings or {}), "evaluation": {**SMALL, **fields}}
    return evaluation.plan_evaluation(data, inpainters, hole, gallery_spec, merged, seed)


def opened(plan: EvaluationPlan) -> tuple[squares.Patches, Tensor, list[Named]]:
    """What a comparison begins with: squares, holes, inpainters."""
    found = squares.open_squares(plan)
    hole = squares.draw_holes(plan, len(found))
    specs, _ = contenders.chosen(plan, found.split, hole)
    settings = evaluation._settings(plan, specs)
    gallery = partial(evaluation._gallery, plan, found)
    return found, hole, open_inpainters(specs, settings, plan.encoder_settings, plan.seed, CPU, gallery)


def keys(plan: EvaluationPlan) -> dict[str, str]:
    """The identity of the record that each inpainter would have, by its name."""
    found, hole, named = opened(plan)
    score = Scores({"PSNR (dB)": 1.0})
    return {one.name: records.key(evaluation._records(plan, one, found, hole, score, 0.0, CPU)[0]) for one in named}


@pytest.mark.parametrize(("hole", "fraction"), [("centre", "0.19140625"), ("region", "0.3")])
def test_no_inpainter_reads_what_is_hidden(
    hole: str, fraction: str, region: str, joint: str, second: str, tmp_path: Path
) -> None:
    """Two data sets that differ in the hidden pixels only are filled alike, by all inpainters, at all sizes."""
    specs = [region, "nearest:hog", f"nearest:{region}", *([joint] if hole == "centre" else [])]
    more = {"hole_fraction": fraction, "has_others": "true", "images": "2", "shown": "2"}
    plan = plan_of("folder:pictures", *specs, hole=hole, gallery_spec="folder:others", **more)
    found, holes, _ = opened(plan)
    shutil.copytree("pictures", tmp_path / "pictures")
    for number, position in enumerate(found.positions.tolist()):
        path = tmp_path / "pictures" / found.split.images.name(int(found.store.kept[position]))
        hidden = holes[number, 0].numpy()[..., None]
        Image.fromarray(np.where(hidden, picture((SIZE, SIZE), 50), np.array(Image.open(path)))).save(path)
    poisoned = plan.model_copy(update={"data": f"folder:{tmp_path}/pictures"})
    shown = []
    for one in (plan, poisoned):
        found, holes, named = opened(one)
        shown.append({n.name: evaluation._scored(n, found, holes, one, None)[1] for n in named})
    assert len(shown[0]) == (9 if hole == "centre" else 7)
    for name, filled in shown[0].items():
        assert torch.equal(torch.where(holes, filled, 0.0), torch.where(holes, shown[1][name], 0.0)), name


def test_the_scores_are_those_of_the_hidden_pixels(tmp_path: Path) -> None:
    """Mean colour against arithmetic on the files themselves."""
    made = evaluation.evaluate(plan_of("folder:pictures", "mean_colour", images="6"), tmp_path / "run", CPU)
    errors = [
        np.array(Image.open(path))[16:48, 16:48] / 255 - np.array(IMAGENET_MEAN) for path in Path("pictures").iterdir()
    ]
    scores = made.scores["Mean colour"]
    assert scores["mean L1"] == pytest.approx(np.mean([np.abs(error).mean() for error in errors]), abs=1e-6)
    assert scores["mean L2"] == pytest.approx(np.mean([(error**2).mean() for error in errors]), abs=1e-6)
    decibels = np.mean([-10 * np.log10((error**2).mean()) for error in errors])
    assert scores["PSNR (dB)"] == pytest.approx(decibels, abs=1e-4)
    assert {record.protocol for record in made.records} == {"32x32 centre of 64x64/v1"}  # the region scored
    assert {record.n_examples for record in made.records} == {6}


def test_numbers_do_not_depend_on_how_many_images_are_filled_at_once(
    region: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = (region, "telea", "nearest:hog")
    plan = plan_of("folder:pictures", *specs, hole="centre", gallery_spec="folder:others", images="6")
    found, hole, named = opened(plan)
    scores = []
    for chunk in (64, 4, 1):
        monkeypatch.setattr(evaluation, "CHUNK_IMAGES", chunk)
        scores.append({one.name: evaluation._scored(one, found, hole, plan, None) for one in named})
    for other in scores[1:]:
        for name, (numbers, filled) in other.items():  # a network adds up in another order for another batch
            assert numbers.values == pytest.approx(scores[0][name][0].values, abs=1e-5), name
            assert torch.allclose(filled, scores[0][name][1], atol=1e-6), name


def test_images_and_holes_depend_on_neither_inpainters_nor_numbers() -> None:
    plans = [
        plan_of("shapes:shapes", "telea", hole="region"),
        plan_of("shapes:shapes", "mean_colour", "shift_map", hole="region"),
        plan_of("shapes:shapes", "telea", hole="region", images="2"),
    ]
    cuts = [squares.open_squares(plan).cut(torch.arange(2)) for plan in plans]
    drawn = [squares.draw_holes(plan, count) for plan, count in zip(plans, (4, 4, 2), strict=True)]
    assert torch.equal(cuts[0], cuts[1]) and torch.equal(cuts[0], cuts[2])
    assert torch.equal(drawn[0], drawn[1]) and torch.equal(drawn[0][:2], drawn[2])
    assert not torch.equal(drawn[0][0], drawn[0][1])
    assert not torch.equal(drawn[0], squares.draw_holes(plans[0].model_copy(update={"seed": 1}), 4))


def test_test_is_filled_where_there_is_one_and_the_gallery_is_beside_it() -> None:
    plan = plan_of("shapes:shapes", "nearest:hog")
    found, _, _ = opened(plan)
    assert (
        found.split.name == "test"
        and found.store.digest == open_store(open_data("shapes:shapes", "test").images, SIZE).digest
    )
    assert len(evaluation._gallery(plan, found)) == 12
    assert squares.open_squares(plan_of("folder:pictures", "telea")).split.name == "pretrain"
    held = plan_of("folder:pictures", "telea", settings={"data": {"test_fraction": "0.5"}})
    rest = evaluation._gallery(held, squares.open_squares(held))
    assert squares.open_squares(held).split.name == "test" and len(rest) + len(squares.open_squares(held)) == 6


def test_no_image_finds_itself_in_the_gallery(tmp_path: Path) -> None:
    """A gallery with the images that are filled among others is that of the others."""
    shutil.copytree("others", tmp_path / "all")
    for path in Path("pictures").iterdir():
        Image.open(path).save(tmp_path / "all" / f"copy {path.stem}.bmp")  # by their pixels, not by their files
    scores = []
    for name, gallery in (("with", f"folder:{tmp_path}/all"), ("without", "folder:others")):
        plan = plan_of("folder:pictures", "nearest:hog", gallery_spec=gallery)
        found, _, _ = opened(plan)
        scores.append(evaluation.evaluate(plan, tmp_path / name, CPU).scores)
        assert len(evaluation._gallery(plan, found)) == 6
    assert scores[0] == scores[1] and scores[0]["NN-inpainting (HOG)"]["PSNR (dB)"] < 50
    with pytest.raises(UsageError, match="the very images that are filled and no others"):
        opened(plan_of("folder:pictures", "nearest:hog", gallery_spec="folder:pictures"))


def test_whatever_may_change_a_number_is_in_its_identity(region: str, second: str) -> None:
    base = partial(plan_of, "shapes:shapes", "telea", "nearest:hog", region, f"nearest:{region}", hole="centre")
    known = keys(base())
    names = set(known)
    nearest = {name for name in names if name.startswith("NN")}
    trained = {"Context encoder (region)"}
    changes: list[tuple[dict[str, str], Settings, set[str]]] = [
        ({"hole_fraction": "0.2"}, {}, names),
        ({"hole": "region"}, {}, names),
        ({"size": "80"}, {}, names),
        ({"images": "3"}, {}, names),
        ({"gallery": "5"}, {}, nearest),
        ({}, {"telea": {"radius_pixels": "5"}}, {"Telea"}),
        ({}, {"context_encoder": {"batch_size": "1"}}, set()),
        ({"shown": "1"}, {}, set()),
        ({"gallery": "50"}, {}, set()),  # more than there are, as before
        ({"images": "50"}, {}, set()),
    ]
    for fields, settings, changed in changes:
        found = keys(base(settings=settings, **fields))
        assert {name for name in names if found[name] != known[name]} == changed, (fields, settings)
    assert not set(keys(base(seed=1)).values()) & set(known.values())
    other = keys(base(gallery_spec="folder:others"))
    assert {name for name in names if other[name] != known[name]} == nearest
    for specs in ((second,), (f"nearest:{second}",), (f"nearest:{region}@conv3",)):
        assert not set(keys(plan_of("shapes:shapes", *specs, hole="centre")).values()) & set(known.values())
    assert trained <= names


def test_where_things_lie_and_who_else_is_compared_is_not_in_the_identity(region: str, tmp_path: Path) -> None:
    known = keys(plan_of("shapes:shapes", region, "telea", hole="centre"))
    shutil.copytree(region, tmp_path / "moved run")
    shutil.copytree("shapes", tmp_path / "moved data")
    elsewhere = plan_of(f"shapes:{tmp_path}/moved data", f"{tmp_path}/moved run", hole="centre", has_others="true")
    found = keys(elsewhere)
    assert len(found) == 7 and {name: found[name] for name in known} == known
    alone = keys(plan_of("shapes:shapes", f"{region}/generator.safetensors", hole="centre"))
    assert alone == {name: key for name, key in known.items() if name != "Telea"}


def test_equal_weights_that_are_shown_otherwise_are_another_inpainter(region: str) -> None:
    """The colour in the hole is no weight, and changes what a network makes of it."""
    found, hole, (one,) = opened(plan_of("shapes:shapes", region, hole="centre"))
    trained = open_generator(region)
    card = trained.card.model_copy(update={"pretext_config": {**trained.card.pretext_config, "fill": "released"}})
    checkpoint.save_weights(Path("runs/released/generator.safetensors"), trained.network, card)
    _, _, (other,) = opened(plan_of("shapes:shapes", "runs/released", hole="centre"))
    assert one.weights == other.weights and config.hash_of(*one.identity) != config.hash_of(*other.identity)
    truth = found.cut(torch.arange(1))
    filled = [windows.fill_squares(o.inpainter, truth, hole[:1]) for o in (one, other)]
    assert not torch.equal(*filled)


def test_a_comparison_writes_its_figure_its_tables_and_its_records(region: str, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    line = f"inpaint --evaluate shapes:shapes --with {region} --hole centre --set evaluation.images=3"
    found = done(f"{line} --set run.ledger={ledger} --output {tmp_path}/run")
    names = ("methods.png", "tables.md", "tables.tex", "tables.csv")
    assert all(f"written     {tmp_path}/run/{name}" in found.stdout for name in names)
    made = Ledger(ledger).read()
    methods = {record.method for record in made}
    assert methods == {
        *("Context encoder (region)", "NN-inpainting (HOG)", "NN-inpainting (Context encoder (region))"),
        *("Mean colour", "Telea", "Navier-Stokes", "Shift map"),
    }
    metrics = {name for name in inpainting_metrics.HIGHER_IS_BETTER if not name.startswith("LPIPS")}
    has_lpips = inpainting_metrics.lpips_file().is_file()
    assert {record.metric for record in made} - {"LPIPS (whole square)"} == metrics
    assert ("LPIPS is left out" in found.stderr) != has_lpips
    assert all(record.split == "test" and record.n_examples == 3 and record.task == "inpaint" for record in made)
    markdown = (tmp_path / "run" / "tables.md").read_text()
    assert (
        all(method in markdown for method in methods) and "Published: inpainting, as in the paper's Table 1" in markdown
    )
    assert "32x32 centre of 64x64/v1, split test, 3 examples" in markdown and "Table 2" not in markdown
    assert tables.render(made, ("table1",))["tables.md"] == markdown  # from the ledger alone
    assert r"\toprule" in (tmp_path / "run" / "tables.tex").read_text()
    assert len((tmp_path / "run" / "tables.csv").read_text().splitlines()) > len(made)
    with Image.open(tmp_path / "run" / "methods.png") as figure:
        assert figure.width > figure.height  # 9 columns, 3 rows


def test_a_stopped_comparison_begins_anew_to_the_same_numbers(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    plan = plan_of("shapes:shapes", "telea", "mean_colour")
    first = evaluation.evaluate(plan, tmp_path / "run", CPU, ledger)
    with pytest.raises(UsageError, match="holds a finished run"):
        evaluation.evaluate(plan, tmp_path / "run", CPU, ledger)
    (tmp_path / "run" / evaluation.SCORES_FILE).unlink()
    with pytest.raises(UsageError, match="holds another run"):
        evaluation.evaluate(plan_of("shapes:shapes", "telea"), tmp_path / "run", CPU, ledger)
    before = ledger.read()
    again = evaluation.evaluate(plan, tmp_path / "run", CPU, ledger)
    assert again.scores == first.scores and values(ledger.read()) == values(before)


def values(found: Sequence[Record]) -> dict[str, float]:
    return {records.key(record): record.value for record in found}


def test_inpainters_of_one_name_are_told_apart(region: str, second: str, tmp_path: Path) -> None:
    _, _, named = opened(plan_of("shapes:shapes", region, second, hole="centre"))
    assert [one.name for one in named] == [f"Context encoder (region) ({run})" for run in (region, second)]
    shutil.copytree(second, tmp_path / "later")
    _, _, named = opened(plan_of("shapes:shapes", region, f"{tmp_path}/later", hole="centre"))
    assert [one.name for one in named] == ["Context encoder (region) (region)", "Context encoder (region) (later)"]
    shutil.copytree(region, tmp_path / "copy")
    for twin in (f"{region}/", f"{tmp_path}/copy", f"{region}/generator.safetensors"):
        with pytest.raises(UsageError, match="one and the same"):
            opened(plan_of("shapes:shapes", region, twin, hole="centre"))


def test_who_is_compared_is_said(region: str) -> None:
    def specs(plan: EvaluationPlan) -> tuple[list[str], list[str]]:
        found = squares.open_squares(plan)
        return contenders.chosen(plan, found.split, squares.draw_holes(plan, len(found)))

    plain = ["mean_colour", "navier_stokes", "shift_map", "telea"]
    both = ["nearest:hog", f"nearest:{region}"]
    others = {"has_others": "true"}
    assert specs(plan_of("shapes:shapes", region, hole="centre", **others)) == ([region, *plain, *both], [])
    assert specs(plan_of("shapes:shapes", "nearest", "telea", **others)) == (["nearest", "telea", *plain[:3]], [])
    found, notes = specs(plan_of("shapes:shapes", region, **others))  # holes as the run had them
    assert found == [region, *plain] and [note.split()[0] for note in notes] == both and "of its own" in notes[0]
    found, notes = specs(plan_of("folder:others", region, hole="centre", **others))
    assert found == [region, *plain] and all("there is no gallery" in note for note in notes)
    found, notes = specs(plan_of("shapes:shapes", "telea", hole_fraction="0.85", **others))
    assert "nearest:hog" not in found and "HOG cannot describe" in notes[0]


@pytest.mark.parametrize(("side", "is_refused"), [(36, False), (37, True)])
def test_a_network_of_the_middle_is_not_asked_for_more(side: int, is_refused: bool, joint: str) -> None:
    """It predicts 28 pixels and 4 on each side of them."""
    plan = plan_of("shapes:shapes", joint, hole_fraction=str((side / SIZE) ** 2))
    found, hole, named = opened(plan)
    assert hole[0].sum() == side**2
    if is_refused:
        with pytest.raises(UsageError, match=r"fills the central 56\.2 % .* evaluation\.hole_fraction=0\.316 or less"):
            contenders.refuse_beyond(named, hole, plan.config)
        return
    contenders.refuse_beyond(named, hole, plan.config)
    filled = windows.fill_squares(named[0].inpainter, found.cut(torch.arange(1)), hole[:1])
    inside = filled[..., hole[0, 0]]
    assert not torch.allclose(inside, torch.tensor(IMAGENET_MEAN)[:, None], atol=1e-3)


@pytest.mark.parametrize(("hole", "size"), [("region", 64), ("blocks", 96), ("centre", 96)])
def test_what_is_refused_is_all_that_a_network_of_the_middle_cannot_fill(hole: str, size: int, joint: str) -> None:
    plan = plan_of("shapes:shapes", joint, hole=hole, size=str(size))
    found, holes, named = opened(plan)
    if hole == "centre":
        contenders.refuse_beyond(named, holes, plan.config)
        windows.fill_squares(named[0].inpainter, found.cut(torch.arange(4)), holes)
        return
    with pytest.raises(UsageError, match="reach beyond"):
        contenders.refuse_beyond(named, holes, plan.config)


def test_a_network_that_may_know_the_images_is_named(region: str, second: str, tmp_path: Path) -> None:
    def notes(data: str, *specs: str, settings: Settings | None = None) -> list[str]:
        plan = plan_of(data, *specs, hole="centre", settings=settings)
        found, _, named = opened(plan)
        return contenders.suspicions(plan, named, found)

    (note,) = notes("folder:pictures", second, region, "telea")
    assert region in note and second not in note and "telea" not in note and "test_fraction" in note
    assert notes("folder:others", region) == [] == notes("shapes:shapes", region)
    shutil.copytree("pictures", tmp_path / "renamed")
    assert len(notes(f"folder:{tmp_path}/renamed", region)) == 1  # told by content
    held = {"data": {"test_fraction": "0.5"}}
    assert len(notes("folder:pictures", region, settings=held)) == 1  # it read all of them
    apart = run(tmp_path / "apart", "folder:pictures", "compact", {**narrow(), **held})
    assert notes("folder:pictures", apart, settings=held) == [] and len(notes("folder:pictures", apart)) == 1


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("nowhere --with telea", "There is no data set 'nowhere'"),
        ("pictures/0.png --with telea", "not recognised as a data set"),
        ("shapes:shapes --with tela", "Did you mean 'telea'?"),
        ("shapes:shapes --with telea --with telea", "is named twice"),
        ("shapes:shapes --with telea --hole square", "known are blocks, centre, noise, region"),
        ("shapes:shapes --with telea --set evaluation.hole=sqare", "There is no kind of hole"),
        ("shapes:shapes --with telea --blend", "leave them out"),
        ("shapes:shapes --set evaluation.has_others=false", "No inpainter is named"),
        ("shapes:shapes --with telea --set evaluation.has_others=false --gallery shapes:shapes", "not compared"),
        ("shapes:shapes --with telea --set context_encoder.batch_size=9", "context_encoder.batch_size changes nothing"),
        ("shapes:shapes --with telea --set evaluation.imags=3", "Did you mean 'images'?"),
        ("shapes:shapes --with telea --set evaluation.size=16", "greater than or equal to 32"),
        ("shapes:shapes --with telea --set telea.radius=3", "Did you mean 'radius_pixels'?"),
        ("shapes:shapes --with nearest:hog --set evaluation.hole_fraction=0.85", "nearest:hog cannot be compared"),
        ("shapes:shapes --with JOINT --hole region", "reach beyond"),
        ("folder:pictures --with telea --gallery folder:pictures", "and each would find itself"),
        ("shapes:shapes --with telea --output pictures", "holds no run of this suite"),
        ("shapes:shapes --with telea --set run.ledger=pictures", "ledger"),
    ],
)
def test_bad_input_to_a_comparison_gets_a_sentence(line: str, sentence: str, joint: str) -> None:
    assert sentence in refused(f"inpaint --evaluate {line.replace('JOINT', joint)}")


# What training shows of itself


def test_a_run_shows_how_it_learned(joint: str) -> None:
    """The fills of every look are kept, and its figures drawn from them."""
    folder = Path(joint)
    for name in ("learning_curve.png", "samples_over_time.png"):
        assert Image.open(folder / name).width > 100
    looks = runlog.read_log(folder / "validation.jsonl")
    assert [line["step"] for line in looks] == [1, 2] and all("hidden_psnr" in line for line in looks)
    with np.load(folder / "samples" / "looks.npz", allow_pickle=False) as kept:
        assert set(kept) == {"0000001", "0000002", "input", "truth"}
        first, last, truth = (to_float(torch.from_numpy(kept[name])) for name in ("0000001", "0000002", "truth"))
    hole = squares.draw_holes(plan_of("shapes:shapes", joint), 1)[0]
    assert torch.equal(last[:, :, ~hole[0]], truth[:, :, ~hole[0]]) and not torch.equal(first, last)
