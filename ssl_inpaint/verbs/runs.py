"""Verbs that make run folders and records: training, transfer, what comes from elsewhere, benches, everything."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ssl_inpaint import options
from ssl_inpaint.errors import Failure
from ssl_inpaint.options import Name

HOLES = Name("kind of hole", ("centre", "blocks", "region", "noise"))
MODES = Name("mode", ("frozen", "finetune"))
SOURCES = "random:, kmeans: or pca:ENCODER, RUN, ENCODER=FILE, torchvision:alexnet or timm:NAME."


@click.command()
@click.option("--data", "spec", default="shapes", help="NAME, NAME:PATH, or a path.")
@click.option("--pretext", type=options.part("pretext"), default="inpainting", help="The task to learn from.")
@click.option("--encoder", help="NAME or timm:NAME, to train from random weights; the recipe's, if absent.")
@click.option("--from", "start", help=f"Weights to go on from; random ones, if absent: {SOURCES}")
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
    start: str | None,
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
      ssl-inpaint pretrain --data folder:photos --pretext rotation --from runs/ours --output runs/rotated
    """
    from ssl_inpaint.experiment import pretrain as verb
    from ssl_inpaint.plans import PretrainPlan, read_plan

    settings = options.settings_of([*assignments, *([f"pretext.holes={holes}"] if holes else [])])
    if resume:
        options.refuse_others(context)
        plan, folder = read_plan(PretrainPlan, resume), resume
    else:
        plan = verb.plan_pretraining(spec, pretext, recipe, encoder, settings, seed, start or "")
        begun = Path(start).name if start else plan.encoder
        folder = output or options.new_folder(f"{pretext}-{begun}-{seed}")
    runtime, ledger, workers = options.open_run(settings, plan.train.precision, is_shared=True)
    made = verb.pretrain(plan, folder, runtime, ledger, resume is not None, workers)
    if not runtime.group.is_first:
        return
    click.echo(f"{made.card.method}: {made.fit.examples} images in {made.fit.seconds:.0f} s")
    for name, value in made.validation.items():
        click.echo(f"  held out, {name}: {value:.5f}")
    click.echo(f"run folder  {folder}\nencoder     {folder / 'encoder.safetensors'}\nledger      {ledger.path}")


@click.command()
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


@click.command("import")
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


@click.command()
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


@click.command("bench")
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
    By --set, ROW.PART.FIELD and TASK.PART.FIELD change rows and measurements; ROW.source takes an encoder from there,
    and ROW.start has pretraining go on from there.

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
