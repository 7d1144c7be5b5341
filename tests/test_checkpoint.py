"""What TensorFlow 2.20 wrote is read exactly, in every format it can write."""

from pathlib import Path

import numpy as np
import pytest
from checkpoint_files import save, tensorflow

from resnet_ref.errors import CheckpointError
from resnet_ref.weights.checkpoint import open_checkpoint

pytestmark = pytest.mark.oracle

RNG = np.random.default_rng(3)
UNIT = "resnet_v1_50/block1/unit_1/bottleneck_v1"
VALUES = {
    "resnet_v1_50/conv1/weights": RNG.normal(size=(7, 5, 3, 2)).astype(np.float32),
    f"{UNIT}/conv1/BatchNorm/gamma": np.array([np.inf, -0.0, 1e-45, np.finfo(np.float32).max], np.float32),
    f"{UNIT}/conv1/weights": RNG.normal(size=(300, 301)).astype(np.float32),  # a block of its own
    "global_step": np.int64(-(2**63)),
    "kinds/bool": np.array([[True], [False]]),
    "kinds/empty": np.zeros((0, 3), np.float32),
    "kinds/float16": RNG.normal(size=(2, 3)).astype(np.float16),
    "kinds/float64": RNG.normal(size=5),
    "kinds/int16": np.array([-(2**15), -1, 2**15 - 1], np.int16),
    "kinds/int32": np.array([-(2**31), 0, 127, 128, 2**31 - 1], np.int32),
    "kinds/int64": np.array([2**63 - 1, -1, 0, 300], np.int64),
    "kinds/int8": np.array([-128, 127], np.int8),
    "kinds/scalar": np.float32(0.1),
    "kinds/string": np.array([b"one", b""], object),
    "kinds/uint16": np.array([0, 2**16 - 1], np.uint16),
    "kinds/uint8": np.array([0, 255], np.uint8),
}
PARTITIONED = {
    "parts/long": (np.arange(20_000, dtype=np.float32), 3, 0),  # starts that take 1, 2 and 3 bytes in a slice's key
    "parts/columns": (RNG.normal(size=(4, 300)).astype(np.float32), 3, 1),
    "parts/rows": (np.arange(7 * 2 * 3, dtype=np.int32).reshape(7, 2, 3), 4, 0),
}
ARRAYS = {name: value for name, value in VALUES.items() if name != "kinds/string"} | {
    name: value for name, (value, _, _) in PARTITIONED.items()
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder per format, each with a checkpoint model.ckpt of VALUES and PARTITIONED."""
    root = tmp_path_factory.mktemp("written")
    for version in (1, 2):
        for sharded in (False, True):
            prefix = root / f"v{version}{'-sharded' if sharded else ''}" / "model.ckpt"
            save(prefix, VALUES, version, sharded=sharded, partitioned=PARTITIONED)
    return root


FORMATS = [
    ("v1", "TensorFlow V1", 1),
    ("v1-sharded", "TensorFlow V1", 3),
    ("v2", "TensorFlow V2", 1),
    ("v2-sharded", "TensorFlow V2", 3),
]


@pytest.mark.parametrize(("name", "kind", "shards"), FORMATS)
def test_every_array_comes_back_with_its_bits(folder: Path, name: str, kind: str, shards: int) -> None:
    with open_checkpoint(folder / name / "model.ckpt") as checkpoint:
        assert (checkpoint.kind, checkpoint.shards) == (kind, shards)
        assert list(checkpoint.variables) == sorted([*ARRAYS, "kinds/string"])
        for key, expected in ARRAYS.items():
            got, variable = checkpoint.read(key), checkpoint.variables[key]
            assert (got.dtype, got.shape, got.nbytes) == (variable.dtype, variable.shape, variable.nbytes)
            assert (got.dtype, got.shape) == (expected.dtype, expected.shape), key
            assert got.tobytes() == expected.tobytes(), key
            assert got.flags.writeable
            assert got.flags.aligned


@pytest.mark.parametrize("name", [name for name, _, _ in FORMATS])
def test_a_string_is_listed_but_is_no_array(folder: Path, name: str) -> None:
    with open_checkpoint(folder / name) as checkpoint:
        variable = checkpoint.variables["kinds/string"]
        assert (variable.dtype, variable.shape, variable.nbytes) == ("string", (2,), 0)
        with pytest.raises(CheckpointError, match=r"kinds/string.*string"):
            checkpoint.read("kinds/string")


def test_the_files_are_those_that_were_read_and_have_their_sizes(folder: Path) -> None:
    with open_checkpoint(folder / "v2-sharded") as checkpoint:
        names = ["index", *(f"data-0000{k}-of-00003" for k in range(3))]
        assert [Path(file.path).name for file in checkpoint.files] == [f"model.ckpt.{name}" for name in names]
        assert all(file.size == Path(file.path).stat().st_size for file in checkpoint.files)


@pytest.mark.parametrize("version", [1, 2])
def test_a_sharded_checkpoint_opens_by_the_path_the_saver_reports_and_by_any_shard(
    tmp_path: Path, version: int
) -> None:
    """The V1 saver reports model.ckpt-?????-of-00002, which is no file."""
    reported = save(tmp_path / "model.ckpt", {"a": np.float32(1), "b": np.float32(2)}, version, sharded=True)
    shards = sorted(tmp_path.glob("*-of-00002"))
    assert len(shards) == 2
    for path in (reported, tmp_path, *shards, tmp_path / "model.ckpt.meta", tmp_path / "checkpoint"):
        with open_checkpoint(path) as checkpoint:
            assert (checkpoint.read("a"), checkpoint.read("b")) == (1, 2)


def test_bfloat16_becomes_the_same_number_in_float32(tmp_path: Path) -> None:
    tf = tensorflow()
    value = np.array([1.0, -3.140625, 1e-40, np.inf], tf.bfloat16.as_numpy_dtype)
    path = save(tmp_path / "model.ckpt", {"b": value}, 2)  # the V1 saver refuses bfloat16
    with open_checkpoint(path) as checkpoint:
        assert (checkpoint.variables["b"].dtype, checkpoint.variables["b"].stored) == (np.float32, "bfloat16")
        np.testing.assert_array_equal(checkpoint.read("b"), value.astype(np.float32), strict=True)


def test_an_object_checkpoint_lists_variables_under_their_own_names(tmp_path: Path) -> None:
    """Slots under TensorFlow's full name; names that several share, or that are missing, by the path of objects."""
    tf = tensorflow()
    module, twins = tf.Module(), tf.Module()
    module.kernel = tf.Variable(VALUES["resnet_v1_50/conv1/weights"], name="resnet_v1_50/conv1/weights")
    module.beta = tf.Variable(VALUES["kinds/float64"], name="resnet_v1_50/conv1/BatchNorm/beta")
    twins.left, twins.right = tf.Variable(1.0, name="same"), tf.Variable(2.0, name="same")
    optimizer = tf.compat.v1.train.MomentumOptimizer(0.1, 0.9)
    optimizer.apply_gradients([(tf.ones_like(module.kernel), module.kernel)])
    saved = {"model": module, "optimizer": optimizer, "twins": twins, "text": tf.Variable("text", name="text")}
    path = tf.train.Checkpoint(**saved).save(str(tmp_path / "ckpt"))
    slot = optimizer.get_slot(module.kernel, "momentum")
    expected = {
        "resnet_v1_50/conv1/weights": module.kernel,
        "resnet_v1_50/conv1/BatchNorm/beta": module.beta,
        "resnet_v1_50/conv1/weights/Momentum": slot,
        "twins/left": twins.left,
        "twins/right": twins.right,
    }
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.kind == "TensorFlow 2 object"
        assert set(checkpoint.variables) == {*expected, "save_counter", "text"}
        for name, variable in expected.items():
            np.testing.assert_array_equal(checkpoint.read(name), variable.numpy(), strict=True)
