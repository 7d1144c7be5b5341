"""The errors a user can meet. Each message says where, what was expected, what was got, and what to do."""


class ResnetRefError(Exception):
    """Everything this package raises on purpose; the command line turns it into one line of stderr."""


class WeightsError(ResnetRefError, ValueError):
    """A weights file, or a mapping of weights, is not what the network needs."""


class CheckpointError(ResnetRefError, ValueError):
    """A TensorFlow checkpoint cannot be read, or is not a ResNet v1."""


class RecordingError(ResnetRefError, ValueError):
    """A file is no recording of slim's outputs, is damaged, or belongs to another network."""


class ImageError(ResnetRefError, ValueError):
    """A file is no image that can be read, or an array is no image."""


class ShapeError(ResnetRefError, ValueError):
    """An argument's shape, stride, rate or size does not fit; slim raises ValueError in these places."""


class DeviceError(ResnetRefError):
    """A device, precision or instruction set that this machine or this version does not have."""


class VerificationError(ResnetRefError):
    """A check that was asked for failed."""


class BenchError(ResnetRefError):
    """A contender of a benchmark cannot be run: it is not installed, or its process failed."""
