"""Checkpoints for the tests: written by TensorFlow itself, and byte by byte where no TensorFlow writes such a one."""

import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

MAGIC = bytes.fromhex("57fb808b247547db")


def tensorflow() -> Any:
    """Import TensorFlow, whose import warns about things that are none of ours."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow as tf
    return tf


def save(
    prefix: Path,
    values: Mapping[str, Any],
    version: int,
    *,
    sharded: bool = False,
    partitioned: Mapping[str, tuple[Any, int, int]] | None = None,
) -> str:
    """Let TensorFlow 1's Saver write `values`, and `partitioned` (array, shards, axis); return the path it reports."""
    tf = tensorflow()
    v1 = tf.compat.v1
    prefix.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(), tf.Graph().as_default():
        warnings.simplefilter("ignore")
        variables = []
        for number, (name, value) in enumerate(values.items()):
            with tf.device(f"/cpu:{number % 2 if sharded else 0}"):
                variables.append(v1.get_variable(name, initializer=tf.constant(value), use_resource=False))
        for name, (value, shards, axis) in (partitioned or {}).items():
            partitioner = v1.fixed_size_partitioner(shards, axis=axis)
            variables.append(v1.get_variable(name, initializer=tf.constant(value), partitioner=partitioner))
        with v1.Session(config=v1.ConfigProto(device_count={"CPU": 2})) as session:
            session.run(v1.global_variables_initializer())
            return str(v1.train.Saver(variables, write_version=version, sharded=sharded).save(session, str(prefix)))


def varint(value: int) -> bytes:
    """Encode an unsigned integer, or a negative one as its 64-bit two's complement."""
    value &= (1 << 64) - 1
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def message(*fields: tuple[int, int | bytes]) -> bytes:
    """Encode fields (number, value): integers as varints, bytes with their length."""
    out = b""
    for number, value in fields:
        if isinstance(value, bytes):
            out += varint(number << 3 | 2) + varint(len(value)) + value
        else:
            out += varint(number << 3) + varint(value)
    return out


def masked(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def block(entries: Iterable[tuple[bytes, bytes]], compression: int = 0) -> bytes:
    """Encode a table's block, its keys unshared, with its trailer."""
    data = b"".join(b"\0" + varint(len(key)) + varint(len(value)) + key + value for key, value in entries)
    data += b"\0\0\0\0\1\0\0\0" + bytes([compression])
    return data + masked(data).to_bytes(4, "little")


def table(entries: Mapping[bytes, bytes], compression: int = 0) -> bytes:
    """Encode a table of one data block, entries in the order given."""
    data = block(entries.items(), compression)
    return with_index(data, [(max(entries, default=b"") + b"\xff", (0, len(data) - 5))])


def with_index(data: bytes, handles: Iterable[tuple[bytes, tuple[int, int]]]) -> bytes:
    """Append an index block of (last key, (offset, size)) and the footer to a table's data blocks."""
    index = block([(key, varint(offset) + varint(size)) for key, (offset, size) in handles])
    footer = varint(0) + varint(0) + varint(len(data)) + varint(len(index) - 5)
    return data + index + footer.ljust(40, b"\0") + MAGIC


def shape(*sizes: int) -> bytes:
    return message(*((2, message((1, size))) for size in sizes))


def piece(*extents: tuple[int, int]) -> bytes:
    """Encode a TensorSliceProto of (start, length) per dimension."""
    return message(*((1, message((1, start), (2, length))) for start, length in extents))


def v1_table(
    tensors: Mapping[str, tuple[bytes, int, list[bytes]]], values: Mapping[bytes, bytes], **options: int
) -> bytes:
    """Encode a V1 checkpoint: tensors name -> (shape, type, slices), values key -> SavedSlice."""
    metas = [
        (1, message((1, name.encode()), (2, dims), (3, dtype), *((4, part) for part in parts)))
        for name, (dims, dtype, parts) in tensors.items()
    ]
    entries = {b"": message((1, message(*metas)))} | {key: message((2, value)) for key, value in values.items()}
    return table(entries, **options)


def v1_scalar(name: str, number: float) -> bytes:
    """Encode a V1 checkpoint of one float32 scalar."""
    packed = np.float32(number).tobytes()
    value = message((1, name.encode()), (2, b""), (3, message((5, packed))))
    return v1_table({name: (b"", 1, [b""])}, {b"\0" + name.encode() + b"\0\1\0": value})


def entry(data: bytes, dims: bytes, dtype: int = 1, offset: int = 0, **fields: int) -> bytes:
    """Encode a BundleEntryProto for bytes that lie at `offset` in shard 0 (or fields' `shard`)."""
    out = message((1, dtype), (2, dims), (3, fields.get("shard", 0)), (4, offset), (5, fields.get("size", len(data))))
    return out + bytes([6 << 3 | 5]) + masked(data).to_bytes(4, "little")


def v2(prefix: Path, entries: Mapping[bytes, bytes], data: bytes, header: bytes = message((1, 1))) -> Path:
    """Write a V2 checkpoint of one data file; return the prefix."""
    prefix.with_name(prefix.name + ".index").write_bytes(table({b"": header} | dict(entries)))
    prefix.with_name(prefix.name + ".data-00000-of-00001").write_bytes(data)
    return prefix


def v2_scalar(prefix: Path, name: str, number: float) -> Path:
    """Write a V2 checkpoint of one float32 scalar; return the prefix."""
    data = np.float32(number).tobytes()
    return v2(prefix, {name.encode(): entry(data, b"")}, data)
