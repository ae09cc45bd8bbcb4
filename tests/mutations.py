"""Ways to damage files, each chosen by a seeded `random.Random`."""

from __future__ import annotations

import json
import os
import pickle
import struct

import torch
import yaml
from safetensors import safe_open
from safetensors.torch import save_file


VALUES = (
    None, True, "x", "", "true", -1, 0, 2.5, 10**9, 2**63, 10**30, 1e308, float("nan"), float("inf"), [], ["a"],
    [None], {}, {"a": 1}, "\u202e\x00\n", "9" * 5000,
)  # fmt: skip
GONE = object()


class Planted:
    """Runs code where it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch PLANTED",)


def folder(file, chance):
    file.unlink()
    file.mkdir()


def pipe(file, chance):
    file.unlink()
    os.mkfifo(file)


def link(file, chance):
    file.unlink()
    file.symlink_to(chance.choice([file.name, "nothing", "/dev/zero", "/dev/null"]))


def cut(file, chance):
    data = file.read_bytes()
    file.write_bytes(data[: chance.choice([0, len(data) // 2, max(0, len(data) - 9)])])


def overwritten(file, chance):
    size = file.stat().st_size
    file.write_bytes(chance.choice([bytes(size), chance.randbytes(size), b"hello\n", b"\xff\xfe\xe9\x00caf\xe9"]))


def planted(file, chance):
    file.write_bytes(pickle.dumps(Planted()))


def leaves(content, path=()):
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from leaves(value, (*path, key))


def changed(content, chance):
    """A value of nested containers is another one, or gone."""
    *path, last = chance.choice(list(leaves(content)))
    value = chance.choice([*VALUES, GONE])
    place = content
    for key in path:
        place = place[key]
    if value is GONE:
        del place[last]
    else:
        place[last] = value
    return content


def json_value(file, chance):
    file.write_text(json.dumps(changed(json.loads(file.read_text(encoding="utf-8")), chance)), encoding="utf-8")


def json_text(file, chance):
    texts = ["null", "[]", "{}", "3", '"x"', "NaN", "[" * 200_000 + "]" * 200_000, '{"a": ' * 3000 + "1" + "}" * 3000]
    file.write_text(chance.choice(texts), encoding="utf-8")


def tensors(file, change):
    with safe_open(file, framework="pt") as opened:
        metadata, found = opened.metadata(), {name: opened.get_tensor(name) for name in opened.keys()}
    metadata = change(found, dict(metadata or {}))
    save_file({name: tensor.contiguous() for name, tensor in found.items()}, file, metadata or None)


def tensor_value(file, chance):
    def change(found, metadata):
        name = chance.choice(sorted(found))
        value = found[name].float()
        found[name] = chance.choice(
            [
                torch.full_like(value, float("nan")), torch.full_like(value, 1e30), value.to(torch.int64),
                value.to(torch.bool), value.to(torch.complex64), value[None], torch.zeros(0), torch.tensor(1.0),
            ]
        )  # fmt: skip
        return metadata

    tensors(file, change)


def tensor_names(file, chance):
    def change(found, metadata):
        name = chance.choice(sorted(found))
        tensor = found.pop(name)
        kind = chance.randrange(4)
        if kind == 0:
            found[f"\u202e\n<b>{name}"] = tensor
        elif kind == 1:
            found.clear()
        return {"class_names": chance.choice(["[1", "3", '[["a"]]', "null"]), "head": "x"} if kind == 2 else metadata

    tensors(file, change)


def tensor_header(file, chance):
    data = file.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    name = chance.choice([name for name in header if name != "__metadata__"])
    key, value = chance.choice([("shape", [10**9, 10**9]), ("data_offsets", [0, 10**15]), ("dtype", "F4096")])
    header[name][key] = value
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])


def yaml_value(file, chance):
    content = changed(yaml.safe_load(file.read_text(encoding="utf-8")), chance)
    file.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")


def yaml_option(file, chance):
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    part, name = chance.choice(
        [
            ("meta", "max_steps"), ("meta", "learning_rate"), ("meta", "entropy_weight"), ("meta", "seed"),
            ("meta", "optim"), ("meta", "report_to"), ("meta", "filter"), ("meta", "weight_decay"),
            ("meta", "per_device_train_batch_size"), ("meta", "hub_token"), ("specialize", "max_steps"),
            ("specialize", "images"), ("specialize", "teacher"), ("specialize", "max_grad_norm"),
            ("specialize", "ensemble_weight"), ("adapter", "transform"), ("adapter", "granularity"),
        ]
    )  # fmt: skip
    content.setdefault(part, {})[name] = chance.choice(VALUES)
    file.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")


def yaml_text(file, chance):
    bomb = "b0: &b0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"b{i}: &b{i} [{', '.join([f'*b{i - 1}'] * 10)}]\n" for i in range(1, 10))
    merges = "m0: &m0 {a: 1}\n"
    merges += "".join(f"m{i}: &m{i}\n  <<: [*m{i - 1}, *m{i - 1}]\n  k{i}: 1\n" for i in range(1, 25))
    more = [
        "adapter: &a\n  transform: {name: lines, of: *a}\n", f"seed: {'9' * 10_000}\n", f"seed: 1{':59' * 20_000}\n",
        "seed: 2024-13-45\n", "seed: !!bool x\n", "seed: !!int x\n", f"zz: {'[' * 20_000}\n", "? [a]\n: 1\n",
        f"adapter: {{transform: {'{name: lines, of: ' * 700}trim{'}' * 700}}}\n", "seed: \x00\n", "---\na: 1\n",
        "adapter: !!python/object/apply:os.system ['touch PLANTED']\n", bomb, merges, "seed: -1\n", "seed: .nan\n",
    ]  # fmt: skip
    file.write_text(f"{file.read_text(encoding='utf-8')}\n{chance.choice(more)}", encoding="utf-8")


ANY = (folder, pipe, link, cut, cut, overwritten, overwritten, planted)
JSON = (*ANY, *[json_value] * 10, json_text, json_text)
TENSORS = (*ANY, *[tensor_value] * 5, *[tensor_names] * 3, tensor_header, tensor_header)
YAML = (*ANY, *[yaml_value] * 6, *[yaml_option] * 8, *[yaml_text] * 6)
