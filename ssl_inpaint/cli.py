"""The command line: one verb a function, each a few lines around one library call."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ssl_inpaint import catalog, options
from ssl_inpaint.errors import Failure, UsageError
from ssl_inpaint.options import LEDGER, Name

HOLES = Name("kind of hole", ("centre", "blocks", "region", "noise"))
MODES = Name("mode", ("frozen", "finetune"))
EXISTING_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
SOURCES = "random:, kmeans: or pca:ENCODER, RUN, ENCODER=FILE, torchvision:alexnet or timm:NAME."
INPAINTERS = "A RUN of pretrain, telea, ... (list inpainters) or nearest:DESCRIPTOR; with --evaluate, may be repeated."
HOLE = "centre, alpha, box:X,Y,WIDTH,HEIGHT, a mask (white is filled) or a folder of masks; --evaluate: kind of holes."
DESCRIPTORS = "hog, or SOURCE[@STAGE] with a source as in transfer --from; may be repeated."


@click.group(cls=options.Verbs, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="ssl-inpaint")
def main() -> None:
    """Context encoders, end to end: pretrain by inpainting, transfer the features, probe them, tabulate every number.

    Begin with:  ssl-inpaint quickstart
    """


@main.command("list")
@click.argument("kind", required=False, metavar="[KIND]", type=Name("kind of part", catalog.KINDS))
def list_parts(kind: str | None) -> None:
    """What there is: data sets, encoders, pretext tasks, ...

    KIND is data, encoders, pretext, transfer, descriptors, inpainters, recipes, protocols or benches; all, if absent.

    \b
    Example:
      ssl-inpaint list encoders
    """
    for folder in [kind] if kind else catalog.KINDS:
        click.secho(folder, bold=True)
        for name, description in catalog.parts(folder).items():
            click.echo(f"  {name:<20} {description}")


@main.group()
def data() -> None:
    """Make and look at data sets."""


@data.command("make-shapes")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder to make.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Another seed, other scenes.")
@click.option("--set", "assignments", multiple=True, metavar="data.FIELD=VALUE", help="E.g. data.train=500.")
@options.on_torch
def make_shapes(output: Path, seed: int, assignments: tuple[str, ...]) -> None:
    """Draw the embedded data set in the VOCdevkit layout.

    \b
    Example:
      ssl-inpaint data make-shapes --output shapes
    """
    from ssl_inpaint.config import override, refuse_unknown_parts
    from ssl_inpaint.data import shapes

    settings = options.settings_of(assignments)
    refuse_unknown_parts(settings, ("data",))
    config = override(shapes.Config(seed=seed), "data", settings.get("data", {}))
    click.echo(shapes.make_shapes(output, config))


@data.command("info")
@click.argument("spec")
@options.on_torch
def info(spec: str) -> None:
    """What is at a data spec: splits, images, classes.

    \b
    Example:
      ssl-inpaint data info voc2007:VOCdevkit
    """
    from ssl_inpaint.experiment.data import describe_data

    for line in describe_data(spec):
        click.echo(line)


@data.command("proposals")
@click.argument("spec")
@click.option("--protocol", type=options.part("protocols"), default="compact_det", help="Whose settings are used.")
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), help="Write them there too, as .npz files.")
@click.option("--set", "assignments", multiple=True, metavar="PART.FIELD=VALUE", help="E.g. proposals.mode=quality.")
@options.on_torch
def proposals(spec: str, protocol: str, output: Path | None, assignments: tuple[str, ...]) -> None:
    """Search objects in all images of SPEC, for Fast R-CNN: once, on all cores.

    What is found is kept in the cache, so a search that was stopped goes on, and transfer --task det begins at once.

    \b
    Example:
      ssl-inpaint data proposals voc2007:VOCdevkit --protocol voc07_det
    """
    from ssl_inpaint.experiment.proposing import search_proposals

    for line in search_proposals(spec, protocol, options.settings_of(assignments), output):
        click.echo(line)


@main.command()
@click.option("--data", "spec", default="shapes", help="NAME, NAME:PATH, or a path.")
@click.option("--pretext", type=options.part("pretext"), default="inpainting", help="The task to learn from.")
@click.option("--encoder", help="NAME or timm:NAME; the recipe's, if absent.")
@click.option("--holes", type=HOLES, help="Shape of the holes; the pretext's own choice, if absent.")
@click.option("--recipe", type=options.part("recipes"), default="compact", help="Named settings.")
@options.resumable
@options.measuring
@click.pass_context
def pretrain(
    context: click.Context,
    spec: str,
    pretext: str,
    encoder: str | None,
    holes: str | None,
    recipe: str,
    resume: Path | None,
    assignments: tuple[str, ...],
    seed: int,
    output: Path | None,
) -> None:
    """Pretrain an encoder on unlabelled images.

    \b
    Example:
      ssl-inpaint pretrain --data folder:photos --holes region --output runs/ours
    """
    from ssl_inpaint.experiment import pretrain as verb
    from ssl_inpaint.plans import PretrainPlan, read_plan

    settings = options.settings_of([*assignments, *([f"pretext.holes={holes}"] if holes else [])])
    if resume:
        options.refuse_others(context)
        plan, folder = read_plan(PretrainPlan, resume), resume
    else:
        plan = verb.plan_pretraining(spec, pretext, recipe, encoder, settings, seed)
        folder = output or options.new_folder(f"{pretext}-{plan.encoder}-{seed}")
    runtime, ledger, workers = options.open_run(settings, plan.train.precision, is_shared=True)
    made = verb.pretrain(plan, folder, runtime, ledger, resume is not None, workers)
    if not runtime.group.is_first:
        return
    click.echo(f"{made.card.method}: {made.fit.examples} images in {made.fit.seconds:.0f} s")
    for name, value in made.validation.items():
        click.echo(f"  held out, {name}: {value:.5f}")
    click.echo(f"run folder  {folder}\nencoder     {folder / 'encoder.safetensors'}\nledger      {ledger.path}")


@main.command()
@click.option("--task", type=options.part("transfer"), default="cls", help="What to measure.")
@click.option("--from", "source", default="random:compact_alexnet", help=SOURCES)
@click.option("--data", "spec", default="shapes", help="NAME, NAME:PATH, or a path; with labels.")
@click.option("--mode", type=MODES, default="frozen", help="Train the head, or all.")
@click.option("--protocol", type=options.part("protocols"), help="Named, versioned settings; compact_TASK, if absent.")
@click.option("--predictions", "has_predictions", is_flag=True, help="Keep what was predicted, and a gallery of it.")
@options.resumable
@options.measuring
@click.pass_context
def transfer(
    context: click.Context,
    task: str,
    source: str,
    spec: str,
    mode: str,
    protocol: str | None,
    has_predictions: bool,
    resume: Path | None,
    assignments: tuple[str, ...],
    seed: int,
    output: Path | None,
) -> None:
    """Measure an encoder on labelled data.

    \b
    Example:
      ssl-inpaint transfer --task cls --from runs/ours --data voc2007:VOCdevkit --mode frozen
      ssl-inpaint transfer --task det --from runs/ours --data voc2007:VOCdevkit --mode finetune --predictions
    """
    from ssl_inpaint.experiment import transfer as verb
    from ssl_inpaint.plans import TransferPlan, read_plan

    settings = options.settings_of(assignments)
    if resume:
        options.refuse_others(context)
        plan, folder = read_plan(TransferPlan, resume), resume
    else:
        plan = verb.plan_transfer(spec, source, task, mode, protocol, settings, seed, has_predictions)
        folder = output or options.new_folder(f"{task}-{mode}-{Path(source).name}-{seed}")
    loop = plan.protocol.frozen_train if plan.mode == "frozen" else plan.protocol.train
    runtime, ledger, workers = options.open_run(settings, loop.precision, is_shared=True)
    made = verb.transfer(plan, folder, runtime, ledger, resume is not None, workers)
    if not runtime.group.is_first:
        return
    for record in made.records:
        click.echo(
            f"{record.method}, {record.mode}, {record.dataset} {record.split} ({record.n_examples} images): "
            f"{record.metric} {100 * record.value:.2f} %"
        )
    if plan.has_predictions:
        click.echo(f"predictions {folder / verb.PREDICTIONS}")
    click.echo(f"run folder  {folder}\nledger      {ledger.path}")


@main.command("nn-retrieval")
@click.option("--data", "spec", default="shapes", help="NAME, NAME:PATH, or a path.")
@click.option("--descriptor", "descriptors", multiple=True, default=("hog", "random:compact_alexnet"), help=DESCRIPTORS)
@options.measuring
def nn_retrieval(
    spec: str, descriptors: tuple[str, ...], assignments: tuple[str, ...], seed: int, output: Path | None
) -> None:
    """Nearest neighbours of patches, by several descriptors side by side.

    \b
    Example:
      ssl-inpaint nn-retrieval --data voc2007:VOCdevkit --descriptor runs/ours --descriptor hog
    """
    from ssl_inpaint.experiment import retrieval as verb

    settings = options.settings_of(assignments)
    plan = verb.plan_retrieval(spec, descriptors, settings, seed)
    folder = output or options.new_folder(f"nn-retrieval-{seed}")
    runtime, ledger, _ = options.open_run(settings, "auto")
    made = verb.nn_retrieval(plan, folder, runtime, ledger)
    for description, by_descriptor in made.scores.items():
        for name, scores in by_descriptor.items():
            click.echo(f"{description}, {name}: " + ", ".join(f"{m} {100 * v:.2f} %" for m, v in scores.items()))
    for path in made.figures:
        click.echo(f"figure      {path}")
    click.echo(f"ledger      {ledger.path}" if made.records else "no labels, so neighbours are shown and not scored")


@main.command()
@click.argument("images")
@click.option("--with", "inpainters", multiple=True, metavar="INPAINTER", help=INPAINTERS)
@click.option("--hole", help=HOLE)
@click.option("--resize-mask", is_flag=True, help="Fit a mask of another size to its photograph.")
@click.option("--blend", is_flag=True, help="Carry the colours around the hole into it, so that no seam is seen.")
@click.option("--gallery", help="Data spec whose pixels nearest-neighbour inpainting may take.")
@click.option("--evaluate", is_flag=True, help="Compare inpainters on the images, or the test part of a data spec.")
@options.measuring
def inpaint(
    images: str,
    inpainters: tuple[str, ...],
    hole: str | None,
    resize_mask: bool,
    blend: bool,
    gallery: str | None,
    evaluate: bool,
    assignments: tuple[str, ...],
    seed: int,
    output: Path | None,
) -> None:
    """Fill holes in photographs, or measure how well that is done.

    IMAGES is a photograph or a folder of them; with --evaluate a data spec.

    \b
    Example:
      ssl-inpaint inpaint photo.jpg --with runs/ours --hole mask.png --blend
      ssl-inpaint inpaint --evaluate folder:held-out --with runs/ours --gallery folder:photos
    """
    settings = options.settings_of(assignments)
    folder = output or options.new_folder(f"inpaint-{Path(images).stem}")
    runtime, ledger, _ = options.open_run(settings, "auto")
    if evaluate:
        from ssl_inpaint.experiment import evaluation

        if resize_mask or blend:
            raise UsageError("--resize-mask and --blend are for filling, and --evaluate only measures: leave them out.")
        made = evaluation.evaluate(
            evaluation.plan_evaluation(images, inpainters, hole, gallery, settings, seed), folder, runtime, ledger
        )
        for sentence in made.notes:
            click.echo(sentence, err=True)
        click.echo(made.text())
        click.echo("\n".join(f"written     {path}" for path in made.written) + f"\nledger      {ledger.path}")
        return
    from ssl_inpaint.experiment import filling

    if len(inpainters) != 1:
        raise UsageError(
            f"{len(inpainters)} inpainters are named by --with: filling takes one, such as a run or telea."
        )
    done = filling.fill(
        filling.plan_filling(images, inpainters[0], hole or "centre", gallery, settings, seed, resize_mask, blend),
        folder,
        runtime,
    )
    for path in done.written:
        click.echo(path)
    click.echo(f"figure      {done.figure}")
    if done.failed:
        raise Failure("\n".join([f"{len(done.failed)} could not be filled:", *done.failed]))


@main.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--recipe", type=options.part("recipes"), help="Whose network it is; released_centre, if absent.")
@options.measuring
def import_file(file: Path, recipe: str | None, assignments: tuple[str, ...], seed: int, output: Path | None) -> None:
    """Take weights made elsewhere into a run folder.

    FILE is a state dict of the released inpainting network in the layout of any of its ports, or the paper's Caffe
    feature model (.caffemodel), an alexnet.

    \b
    Example:
      ssl-inpaint import netG_streetview.pth --output runs/released
      ssl-inpaint import ce_features.caffemodel --output runs/ce_features
    """
    from ssl_inpaint.experiment import importing

    folder = output or options.new_folder(f"import-{file.stem}")
    made = importing.import_weights(file, recipe, options.settings_of(assignments), folder, seed)
    click.echo("\n".join([*made.report, *(f"written     {path}" for path in made.written)]))


@main.command()
@click.option("--ledger", type=EXISTING_FILE, default=LEDGER, help="Records to tabulate.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("results"), help="Folder for the tables.")
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if the tables there are not those of the ledger.")
def tables(ledger: Path, output: Path, check: bool) -> None:
    """Render the ledger as Markdown, LaTeX and CSV, published rows apart.

    \b
    Example:
      ssl-inpaint tables --check
    """
    from ssl_inpaint import tables as tabulation

    if not check:
        for path in tabulation.write_tables(ledger, output):
            click.echo(path)
        return
    stale = tabulation.stale_tables(ledger, output)
    if stale:
        raise Failure(
            f"Not up to date: {', '.join(map(str, stale))}. Run ssl-inpaint tables and commit what it writes."
        )
    click.echo("up to date")


@main.command()
@click.option("--ledger", type=EXISTING_FILE, default=LEDGER, help="Records to compare.")
@click.option("--data-set", default="shapes", help="Its name, as the tables have it.")
@click.option("--task", default="cls", help="cls, det, seg, linear, nn-retrieval, inpaint, ...")
@click.option("--metric", help="As the tables have it; all of the task's, if absent.")
def compare(ledger: Path, data_set: str, task: str, metric: str | None) -> None:
    """Every row against every other, paired on the same test examples.

    \b
    Example:
      ssl-inpaint compare --data-set shapes --task cls
    """
    from ssl_inpaint import comparisons
    from ssl_inpaint import tables as tabulation
    from ssl_inpaint.records import Ledger

    found = comparisons.comparison_tables(Ledger(ledger).read(), data_set, task, metric)
    click.echo(tabulation.to_text(found))


@main.command()
@click.option("--output", type=click.Path(path_type=Path), default=Path("quickstart"), help="Folder for everything.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Decides every random draw.")
@click.option("--full", is_flag=True, help="Longer training, fine-tuning too, and three seeds: hours.")
@options.on_torch
def quickstart(output: Path, seed: int, full: bool) -> None:
    """The whole suite on the embedded data set, in minutes.

    \b
    Example:
      ssl-inpaint quickstart
    """
    from ssl_inpaint.experiment import quickstart as verb

    click.echo(verb.quickstart(output, seed, full))


@main.command("bench")
@click.argument("name", metavar="BENCH", type=options.part("benches"))
@click.option("--data", "specs", multiple=True, metavar="NAME=SPEC", help="A data set of the bench; may be repeated.")
@click.option("--row", "rows", multiple=True, metavar="ROW", help="Measure this row only; may be repeated.")
@click.option("--task", "tasks", multiple=True, metavar="TASK", help="Measure by this task only; may be repeated.")
@click.option("--seeds", type=click.IntRange(min=1), help="How many; the bench's own number, if absent.")
@click.option("--dry-run", is_flag=True, help="Say what is done and what is left, and run nothing.")
@click.option("--retry", is_flag=True, help="Try again what has failed.")
@click.option("--share", metavar="I/N", help="The I-th of N parts of the cells only; needs no file locks.")
@options.measuring
def run_bench(
    name: str,
    specs: tuple[str, ...],
    rows: tuple[str, ...],
    tasks: tuple[str, ...],
    seeds: int | None,
    dry_run: bool,
    retry: bool,
    share: str | None,
    assignments: tuple[str, ...],
    seed: int,
    output: Path | None,
) -> None:
    """Fill the table of a bench: rows x tasks x seeds, each cell once.

    The same command goes on where it was stopped; several at the same time share the work, and torchrun starts them.
    By --set, ROW.PART.FIELD and TASK.PART.FIELD change rows and measurements; ROW.source takes an encoder from there.

    \b
    Example:
      ssl-inpaint bench compact --data photos=folder:photos --data voc=voc2007:VOCdevkit --dry-run
      ssl-inpaint bench pretexts --row random --row rotation
    """
    from ssl_inpaint.experiment import bench as verb
    from ssl_inpaint.experiment import bench_cells, bench_plans, bench_words, crew

    mates, settings = crew.crew_of(os.environ), options.settings_of(assignments)
    part = bench_cells.Share.parse(share or "1/1")
    chosen = bench_plans.plan_bench(name, options.pairs_of(specs), seeds, settings, rows, tasks)
    folder = output or Path("runs") / (chosen.folder or name)
    cells = part.of(bench_cells.cells_of(chosen, folder, seed))
    bench_plans.refuse_missing(chosen, is_thorough=not dry_run)
    if not dry_run:
        bench_plans.refuse_sizes(cells)
    runtime, ledger, workers = options.open_run(crew.placed(settings, mates), "auto")
    desk = verb.Desk(folder, runtime, ledger, workers, has_own_share=share is not None)
    found = verb.outlook(cells, desk) if dry_run else verb.run(cells, desk, retry)
    if not mates.is_speaker:
        return
    click.echo("\n".join(bench_words.describe(cells, found, runtime.describe())))
    click.echo(f"folder      {folder}\nledger      {ledger.path}")
    if found.failed and not dry_run:
        raise Failure(f"{len(found.failed)} cells have failed: --retry tries them again.")


@main.command()
@click.option("--ledger", type=EXISTING_FILE, default=LEDGER, help="Records to show.")
@click.option(
    "--runs", type=click.Path(path_type=Path), help="Folder of runs; runs/ beside that of the ledger, if absent."
)
@click.option("--output", type=click.Path(path_type=Path), default=Path("report.html"), help="File to write.")
def report(ledger: Path, runs: Path | None, output: Path) -> None:
    """Everything measured as one HTML page, with the records behind every number.

    The page needs no server and no network.

    \b
    Example:
      ssl-inpaint report --runs runs --output report.html
    """
    from ssl_inpaint import report as page

    made = page.write_report(ledger, runs, output)
    if made.left_out:
        click.echo(f"{len(made.left_out)} figures would make the page too large: it names them instead.", err=True)
    click.echo(f"page        {made.path} ({made.size_bytes / 1e6:.1f} MB, {made.runs} runs)")
