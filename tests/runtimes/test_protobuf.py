"""Fields of ONNX models, found without the package onnx."""

import onnx
import pytest

from ofcv_export.runtimes.protobuf import fields


def model(**entries: str) -> onnx.ModelProto:
    made = onnx.ModelProto(ir_version=300, producer_name="x" * 1000)
    for key, value in entries.items():
        made.metadata_props.add(key=key, value=value)
    return made


def test_fields_are_those_of_the_message():
    made = model(one="1", two="ä" * 500)
    found = list(fields(made.SerializeToString(deterministic=True)))
    assert [field.number for field in found] == [1, 2, 14, 14]
    assert bytes(found[1].value).decode() == made.producer_name
    for field, entry in zip(found[2:], made.metadata_props, strict=True):
        assert onnx.StringStringEntryProto.FromString(bytes(field.value)) == entry


def test_a_field_begins_where_the_message_before_it_ends():
    before = model(one="1").SerializeToString(deterministic=True)
    appended = onnx.ModelProto()
    appended.metadata_props.add(key="last", value="2")
    *_, last = fields(before + appended.SerializeToString())
    assert last.start == len(before)


def test_every_truncated_message_is_refused_or_ends_between_fields():
    content = model(one="1").SerializeToString(deterministic=True)
    starts = {field.start for field in fields(content)}
    for size in set(range(len(content))) - starts:
        with pytest.raises(ValueError, match="message: expected"):
            list(fields(content[:size]))


@pytest.mark.parametrize("content", [b"\x0b", b"\x07", b"\xff" * 12, b"\x00\x01"])
def test_what_is_no_message_is_refused(content):
    with pytest.raises(ValueError, match="message: expected"):
        list(fields(content))
