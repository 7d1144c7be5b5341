"""Train the shipped digits network with slim itself: `python weights/digits/train.py OUT_PREFIX`.

The network is resnet_v1_50 at an eighth of its width, for 64x64 images of ten digits. The data are scikit-learn's
handwritten digits (UCI "Optical Recognition of Handwritten Digits"): 1,797 scans of 8x8 pixels with values 0 to 16.
Needs `pip install 'resnet-ref[dev]'`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from PIL import Image

from resnet_ref import Preprocessing, oracle

SEED = 20160
CLASSES = 10
SIZE = 64
DEPTH_MULTIPLIER = 0.125
MEANS = Preprocessing().means
BATCH, EPOCHS, LEARNING_RATE = 64, 80, 0.05
MAX_SHIFT, MAX_SCALE = 0.06, 0.1

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Digits:
    """All scans as uint8 [1797, 8, 8], light ink on black, their labels, and the indices of the two splits."""

    images: Bytes
    labels: Ints
    train: Ints
    test: Ints


def load_split() -> Digits:
    """Load scikit-learn's digits and hold out a fixed, stratified fifth of them as the test set."""
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise click.ClickException(
            f"{error}. The data come with scikit-learn: pip install 'resnet-ref[dev]'"
        ) from error
    scans = load_digits()
    labels = np.asarray(scans.target, np.int64)
    images = np.round(scans.images * (255 / 16)).astype(np.uint8)
    train, test = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=SEED)
    return Digits(images, labels, np.sort(train), np.sort(test))


def network(nets: oracle.Nets, images: Any, is_training: bool) -> Any:
    """Logits [N, 10] of preprocessed images [N, 64, 64, 3]."""
    with nets.slim.arg_scope(nets.resnet_arg_scope(batch_norm_decay=0.95)):
        logits, _ = nets.resnet_v1_50(images, CLASSES, is_training, depth_multiplier=DEPTH_MULTIPLIER)
    return logits


def enlarge(nets: oracle.Nets, scans: Any) -> Any:
    """[N, 8, 8, 1] to [N, 64, 64, 1] with the bilinear resize of TensorFlow 1."""
    return nets.tf.compat.v1.image.resize_bilinear(scans, (SIZE, SIZE), align_corners=False)


def to_input(nets: oracle.Nets, grey: Any) -> Any:
    """[N, 64, 64, 1] of values 0 to 255 to slim's input: three equal channels minus slim's means."""
    return nets.tf.repeat(grey, 3, axis=3) - nets.tf.constant(MEANS)


def distorted(nets: oracle.Nets, scans: Any, boxes: Any, inverted: Any) -> Any:
    """Training inputs: each scan cut out by its box [N, 4] (outside is black), then inverted where [N] is 1."""
    tf = nets.tf
    cut = tf.image.crop_and_resize(enlarge(nets, scans), boxes, tf.range(tf.shape(boxes)[0]), (SIZE, SIZE))
    sign = tf.reshape(inverted, (-1, 1, 1, 1))
    return to_input(nets, cut + sign * (255.0 - 2.0 * cut))


def draw_distortion(rng: np.random.Generator, count: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Boxes [count, 4] as fractions of the image (top, left, bottom, right) and inversions [count], 0 or 1."""
    half = rng.uniform(1 - MAX_SCALE, 1 + MAX_SCALE, (count, 2)) / 2
    centre = 0.5 + rng.uniform(-MAX_SHIFT, MAX_SHIFT, (count, 2))
    boxes = np.concatenate([centre - half, centre + half], axis=1)
    return boxes.astype(np.float32), rng.integers(0, 2, count).astype(np.float32)


def train(digits: Digits, prefix: Path) -> tuple[Path, dict[str, npt.NDArray[Any]]]:
    """Train, save a V2 checkpoint with global_step and Momentum slots; return its prefix and the model's variables."""
    rng = np.random.default_rng(SEED)
    steps = EPOCHS * (len(digits.train) // BATCH)
    with oracle.graph() as nets:
        tf, v1 = nets.tf, nets.tf.compat.v1
        v1.set_random_seed(SEED)
        scans = v1.placeholder(tf.float32, (BATCH, 8, 8, 1))
        boxes, inverted = v1.placeholder(tf.float32, (BATCH, 4)), v1.placeholder(tf.float32, (BATCH,))
        labels = v1.placeholder(tf.int64, (BATCH,))
        logits = network(nets, distorted(nets, scans, boxes, inverted), is_training=True)
        v1.losses.sparse_softmax_cross_entropy(labels, logits)
        loss = v1.losses.get_total_loss()
        step = v1.train.get_or_create_global_step()
        rate = v1.train.cosine_decay(LEARNING_RATE, step, steps)
        with tf.control_dependencies(v1.get_collection(v1.GraphKeys.UPDATE_OPS)):
            update = v1.train.MomentumOptimizer(rate, 0.9).minimize(loss, step)
        saver = v1.train.Saver()
        with oracle.session(nets) as live:
            live.run(v1.global_variables_initializer())
            for epoch in range(EPOCHS):
                order = rng.permutation(digits.train)
                losses = []
                for start in range(0, len(order) - BATCH + 1, BATCH):
                    rows = order[start : start + BATCH]
                    cuts, signs = draw_distortion(rng, BATCH)
                    feed = {scans: digits.images[rows, :, :, None], boxes: cuts, inverted: signs}
                    losses.append(live.run([loss, update], {**feed, labels: digits.labels[rows]})[0])
                click.echo(f"epoch {epoch + 1:2}  loss {np.mean(losses):.4f}")
            model = {variable.op.name: variable for variable in v1.get_collection(v1.GraphKeys.MODEL_VARIABLES)}
            saved = saver.save(live, str(prefix), global_step=step)
            return Path(saved), live.run(model)


def predict(images: Bytes, variables: oracle.Variables) -> Ints:
    """The classes slim gives to uint8 scans [N, 8, 8] in inference mode, preprocessed as the shipped network does."""

    def build(nets: oracle.Nets, scans: Any) -> Any:
        return network(nets, to_input(nets, enlarge(nets, scans)), is_training=False)

    return np.asarray(np.argmax(oracle.run(build, images[..., None], variables).net, axis=1), np.int64)


def report(digits: Digits, variables: oracle.Variables) -> Ints:
    """Print the test accuracy, plain and inverted, and every mistake; return the indices right in both."""
    truth = digits.labels[digits.test]
    right = np.ones(len(truth), bool)
    for kind, images in (("plain", digits.images), ("inverted", 255 - digits.images)):
        found = predict(images[digits.test], variables)
        correct = found == truth
        right &= correct
        click.echo(f"test accuracy, {kind}: {correct.mean():.4f} ({correct.sum()} of {len(truth)})")
        for row in np.flatnonzero(~correct):
            click.echo(f"  index {digits.test[row]}: {truth[row]} taken for {found[row]}")
    return digits.test[right]


def write_samples(digits: Digits, indices: Ints, folder: Path, count: int = 12) -> None:
    """Write `count` scans of `indices` as 8x8 grey PNG files, classes in turn, named by label and index."""
    by_class = [indices[digits.labels[indices] == label] for label in range(CLASSES)]
    chosen = [by_class[number % CLASSES][number // CLASSES] for number in range(count)]
    folder.mkdir(parents=True, exist_ok=True)
    for index in chosen:
        Image.fromarray(digits.images[index]).save(folder / f"digit_{digits.labels[index]}_idx{index}.png")


@click.command()
@click.argument("out_prefix", type=click.Path(path_type=Path))
@click.option("--samples", type=click.Path(path_type=Path), help="Also write 12 test images, classified right, here.")
def main(out_prefix: Path, samples: Path | None) -> None:
    """Train, write the checkpoint OUT_PREFIX-STEP and split.json beside it, and print the accuracy on the test split.

    Example: python weights/digits/train.py /tmp/digits/model.ckpt
    """
    out_prefix.parent.mkdir(parents=True, exist_ok=True)
    digits = load_split()
    split = {"seed": SEED, "train": digits.train.tolist(), "test": digits.test.tolist()}
    (out_prefix.parent / "split.json").write_text(json.dumps(split))
    checkpoint, variables = train(digits, out_prefix)
    click.echo(f"wrote {checkpoint}")
    right = report(digits, variables)
    if samples is not None:
        write_samples(digits, right, samples)


if __name__ == "__main__":
    main()
