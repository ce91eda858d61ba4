"""How often the 95 % interval of a mAP holds the truth, on made-up scores: of one method, and of the difference of two.

The truth is the mean over many test sets of the same size. "shifted" is what `bootstrap.interval` gives, "percentile"
the replicates' own percentiles, "basic" these mirrored at the value.

    python benchmarks/interval_coverage.py

Prints, after 3 minutes of one CPU core: "shifted" from 93.8 to 96.5 % in the eight lines, "percentile" from 88.8 to
97.2 %, the least for 11-point mAP, and "basic" from 82.5 to 97.8 %.
"""

from __future__ import annotations

import numpy as np

from ssl_inpaint import bootstrap, resampled_metrics
from ssl_inpaint.bootstrap import Interval
from ssl_inpaint.metrics import ApKind, mean_average_precision

TRIALS = 400
CLASS_SHARES = np.linspace(0.03, 0.3, 10)
SETTINGS: tuple[tuple[int, ApKind, float, float], ...] = (  # images, kind, how far positives lie above, of two methods
    (100, "step", 0.3, 0.6),
    (400, "step", 0.3, 0.6),
    (400, "step", 1.5, 1.7),
    (400, "11-point", 0.3, 0.6),
)


def drawn(generator: np.random.Generator, images: int, first: float, second: float) -> tuple[np.ndarray, ...]:
    """Labels, and the scores of two methods whose errors are alike (correlation 0.7)."""
    labels = (generator.random((images, len(CLASS_SHARES))) < CLASS_SHARES).astype(np.int64)
    noise, own = generator.standard_normal((2, *labels.shape))
    return labels, noise + first * labels, 0.7 * noise + 0.51**0.5 * own + second * labels


def intervals(value: float, replicates: np.ndarray) -> dict[str, Interval]:
    """The three kinds."""
    low, high = np.quantile(replicates, [0.025, 0.975])
    return {
        "shifted": bootstrap.interval(value, replicates),
        "percentile": Interval(low, high),
        "basic": Interval(2 * value - high, 2 * value - low),
    }


def main() -> None:
    """Prints a line for each setting."""
    for images, kind, first, second in SETTINGS:
        generator = np.random.default_rng(0)
        values, found = [], []
        for trial in range(TRIALS):
            labels, *both = drawn(generator, images, first, second)
            counts = bootstrap.draw_counts(str(trial), images)
            assert counts is not None
            plain = [mean_average_precision(scores, labels, kind)[0] for scores in both]
            one, other = (resampled_metrics.mean_average_precision_of_scores(s, labels, kind, counts) for s in both)
            values.append((plain[0], plain[0] - plain[1]))
            found.append((intervals(plain[0], one), intervals(plain[0] - plain[1], one - other)))
        truth = np.mean(values, axis=0)
        for place, of in enumerate(("mAP", "difference")):
            shares = {
                name: np.mean([one[place][name].low <= truth[place] <= one[place][name].high for one in found])
                for name in found[0][place]
            }
            said = ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares.items())
            print(f"{images} images, {kind}, {of} {100 * truth[place]:.1f}: {said}", flush=True)


if __name__ == "__main__":
    main()
