"""frequency.json: the measures of one run in the frequency domain.

It holds `values` (softmax or logits), `digest` (of the data set), and one section for the test
images, `test`, and one for the fixed sample of training images, `probe`, each with

    n, delta     number of images, list of deltas; the fields below have a value for each delta
    weight       kernel mass: the number of images that a filtered value averages (median)
    alone        share of images whose kernel mass is below 3: mostly their own neighbors
    null         expected lfr of shuffled values
    shuffled     {measure: [delta]} the two ratios expected for shuffled clean labels
    labels       {name: {measure: [delta]}} of the one-hot clean labels, `true`, and of the ideal
                 predictor, `ideal`; in `probe` also of the noisy labels, `given`, of `noise` =
                 noisy - clean, and of its parts `transition` and `individual`
    outputs      {measure: [epoch][delta]} of the network's outputs
    one_hot      the measures of the last row below of one-hot predictions (`probe`)
    ideal        {measure: [delta]} what `outputs` would be for the ideal predictor
    transition_dropped  whether the transition part is collinear and so left out (`probe`)
    products     the inner products behind them, so that a new measure needs no new pass

Measures; norms are over all images and classes, and `low` is y_low of y less its mean:

    delta_norm    |y_low| / (|y_low| + |y_high|), the original's README
    energy_share  |y_low|^2 / (|y_low|^2 + |y_high|^2), the original's code
    lfr           |low|^2 / |y - mean|^2; 1 for constant values
    excess        (lfr - null) / (1 - null): 0 for shuffled values, 1 if all is low
    e_low, e_high |Y_low - h_low| / |Y_low| (and high) of outputs h against clean labels Y (`test`)
    e_low_centered  e_low of values less their means: 1 for constant outputs (`test`)
    learned_true_low, learned_noise_low, learned_true_high, learned_noise_high
                  least-squares coefficients of the outputs' low (high) band on the low (high) band
                  of the clean labels and of the noise, means removed (`probe`)
    clean_low, transition_low, individual_low, clean_high, transition_high, individual_high
                  the same on the three parts of the noisy labels (`probe`)

The last four rows exist for softmax outputs only. A measure of an empty band (the high band where
the kernel is the identity, the noise where no label is wrong) is null. The filter and delta, a
variance in squared normalized-pixel units, are defined in analysis/gaussian_filter.py.
"""

from pathlib import Path

from common.errors import UserError
from common.files import read_json, write_json
from common.run_folder import FREQUENCY

SECTIONS = ("test", "probe")
ALONE = 3  # with a kernel mass below this, the filtered value is mostly the image's own


def write_frequency(run: Path, content: dict) -> Path:
    """Write a run's frequency.json, whole or not at all; returns its path."""
    write_json(run / FREQUENCY, content)
    return run / FREQUENCY


def read_frequency(run: Path) -> dict | None:
    """A run's frequency.json without its inner products; None if there is none yet.

    Raises UserError if it is damaged.
    """
    path = run / FREQUENCY
    if not path.exists():
        return None
    content = read_json(path, "make it again with frequency.py")
    for section in SECTIONS:
        if section not in content:
            raise UserError(f"{path}: it has no `{section}`; make it again with frequency.py")
        content[section].pop("products", None)
    return content
