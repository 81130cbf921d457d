"""Buckets: nothing is lost or altered, none is larger than it may be, none mixes data types."""

from __future__ import annotations

import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st

from areal_real.training.flat import Flattener

DTYPES = (torch.float32, torch.bfloat16)

tensors = st.lists(
    st.tuples(
        st.lists(st.integers(0, 5), max_size=3), st.sampled_from(DTYPES), st.integers(0, 2**31)
    ),
    max_size=12,
)


@given(drawn=tensors, bucket_bytes=st.integers(1, 300))
def test_tensors_come_out_as_they_went_in(
    drawn: list[tuple[list[int], torch.dtype, int]], bucket_bytes: int
) -> None:
    wanted = {}
    flattener = Flattener(bucket_bytes)
    for number, (shape, dtype, seed) in enumerate(drawn):
        generator = torch.Generator().manual_seed(seed)
        tensor = torch.randn(shape, generator=generator).to(dtype)
        # A tensor that is no block of memory, such as a transposed one.
        wanted[f"t{number}"] = tensor.T if len(shape) == 2 else tensor
        flattener.add(f"t{number}", wanted[f"t{number}"])
    buckets = flattener.finish()
    found = [(name, tensor) for bucket in buckets for name, tensor in bucket.tensors()]
    assert [name for name, _ in found] == list(wanted)
    for name, tensor in found:
        assert tensor.dtype == wanted[name].dtype
        assert tensor.shape == wanted[name].shape
        assert torch.equal(tensor, wanted[name])
    for bucket in buckets:
        assert len(bucket.names) > 0
        assert {wanted[name].dtype for name in bucket.names} == {bucket.dtype}
        assert bucket.flat.nbytes == sum(wanted[name].nbytes for name in bucket.names)
        assert bucket.flat.nbytes <= bucket_bytes or len(bucket.names) == 1
    for before, after in itertools.pairwise(buckets):
        joined = before.flat.nbytes + wanted[after.names[0]].nbytes
        assert joined > bucket_bytes or before.dtype != after.dtype


def test_what_is_held_does_not_change_with_the_parameter() -> None:
    parameter = torch.zeros(3, requires_grad=True)
    flattener = Flattener(100)
    flattener.add("a", parameter)
    [bucket] = flattener.finish()
    with torch.no_grad():
        parameter += 1
    [(_, tensor)] = bucket.tensors()
    assert tensor.tolist() == [0, 0, 0]
    assert not tensor.requires_grad
    assert Flattener(100).finish() == ()
