"""The model that a real vLLM serves in `make test-vllm`, read as vLLM would read it."""

from __future__ import annotations

import functools
import json
import math
import re
import struct
from typing import Any

import pytest

from toolchain.real_vllm.alphabet import ANSWER, SPECIAL, STEER, TOOL, TRACE, token
from toolchain.real_vllm.set_up import HERE
from toolchain.real_vllm.tiny_mistral4 import WEIGHTS_FILE, files, params, tokenizer, write


def read(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and data of a safetensors file."""
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


@functools.cache
def rows(name: str) -> list[list[float]]:
    """A matrix of the model, from bfloat16."""
    header, data = read(files()[WEIGHTS_FILE])
    begin, end = header[name]["data_offsets"]
    _, columns = header[name]["shape"]
    values = [struct.unpack("<f", b"\0\0" + data[at : at + 2])[0] for at in range(begin, end, 2)]
    return [values[at : at + columns] for at in range(0, len(values), columns)]


EMBEDDINGS, OUTPUT = "tok_embeddings.weight", "output.weight"


def says(*, steered_to: str | None = None, begin: str = "[/INST]") -> list[int]:
    """What the model says by taking the likeliest token each time, until it ends."""
    said = [token(begin)]
    embeddings, output = rows(EMBEDDINGS), rows(OUTPUT)
    while said[-1] != token("</s>"):
        norm = math.sqrt(sum(value**2 for value in embeddings[said[-1]]) / len(embeddings[0]))
        logits = [
            sum(map(math.prod, zip(row, embeddings[said[-1]], strict=True))) / norm
            for row in output
        ]
        if steered_to is not None:
            logits[token(steered_to)] += STEER
        said.append(logits.index(max(logits)))
        assert len(said) < 60, said
    return said[1:]


def numbers(*texts: str) -> list[int]:
    return [
        number
        for text in texts
        for number in ([token(text)] if text.startswith(("[", "<")) else map(token, text))
    ]


def test_the_tensors_lie_one_after_another_in_the_file():
    header, data = read(files()[WEIGHTS_FILE])
    end = 0
    for name, tensor in header.items():
        assert tensor["dtype"] == "BF16"
        begin, before = tensor["data_offsets"][0], end
        end = tensor["data_offsets"][1]
        assert begin == before, name
        assert end - begin == 2 * math.prod(tensor["shape"]), name
    assert end == len(data)


def test_shapes_and_vocabulary_agree():
    header, _ = read(files()[WEIGHTS_FILE])
    shape, said = params(), tokenizer()
    assert header["tok_embeddings.weight"]["shape"] == [shape["vocab_size"], shape["dim"]]
    assert said["config"]["default_vocab_size"] == shape["vocab_size"]
    assert len(said["vocab"]) + SPECIAL == shape["vocab_size"]
    layers = {name.split(".")[1] for name in header if name.startswith("layers.")}
    assert len(layers) == shape["n_layers"]


def test_asked_for_text_it_says_the_answer_and_ends():
    assert says() == numbers(ANSWER, "</s>")
    assert says(begin="[/TOOL_RESULTS]") == numbers(ANSWER, "</s>")


def test_steered_to_it_it_thinks_first():
    assert says(steered_to="[THINK]") == numbers("[THINK]", TRACE, "[/THINK]", ANSWER, "</s>")


def test_steered_to_it_it_calls_a_tool():
    called = says(steered_to="[TOOL_CALLS]")
    assert called == numbers("[TOOL_CALLS]", TOOL, "[ARGS]", "{}", "</s>")


def test_no_letter_leads_two_ways():
    letters = ANSWER + TRACE + TOOL
    assert len(set(letters)) == len(letters)


def test_what_is_written_is_the_same_every_time(tmp_path):
    write(tmp_path / "model")
    first = {file.name: file.read_bytes() for file in (tmp_path / "model").iterdir()}
    write(tmp_path / "model")
    assert {file.name: file.read_bytes() for file in (tmp_path / "model").iterdir()} == first
    assert first == files()


@pytest.mark.parametrize("file", ["requirements.in", "overrides.txt"])
def test_what_is_asked_for_is_in_the_list(file):
    listed = (HERE / "requirements.txt").read_text().lower().replace("_", "-")
    asked = re.findall(r"^(\S+==\S+)$", (HERE / file).read_text(), re.MULTILINE)
    assert asked
    for requirement in asked:
        assert f"\n{requirement.lower().replace('_', '-')} " in listed


def test_the_list_is_hashed_and_names_no_address():
    lines = (HERE / "requirements.txt").read_text().splitlines()
    pinned = [number for number, line in enumerate(lines) if re.match(r"[a-z0-9]", line)]
    assert len(pinned) > 100
    assert all("--hash=sha256:" in lines[number + 1] for number in pinned)
    assert not [line for line in lines if "://" in line or line.startswith("-")]
