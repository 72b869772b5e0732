"""The zoo seeds what it says, takes it out again without a trace, and breaks loudly when the runtime has moved on."""

import inspect
import re
from importlib import import_module
from pathlib import Path
from types import FunctionType

import pytest
import torch

import nanollama.model.kv_cache
import nanollama.model.layers
import nanollama.model.transformer
from conformance.score.zoo import entries
from conformance.score.zoo.entries import Bug, Edit, ZooBroken, read_entry
from conformance.score.zoo.live import live_function, runtime_modules, source_text
from conformance.score.zoo.seeding import load_zoo, seeded
from nanollama.generation.sampling import SamplingParams
from nanollama.model.activations import ACTIVATIONS
from nanollama.model.kv_cache import BUCKET, KVView
from nanollama.model.layers import RMSNorm, softcap
from nanollama.model.rope import FREQUENCIES, RopeConfig, linear_frequencies
from nanollama.quant.formats.rowwise import rowwise_format
from nanollama.text.chat.template import ChatTemplate

LAYERS = "nanollama.model.layers"


def bug(*edits: tuple[str, str, str], name: str = "a-bug", custom: str | None = None) -> Bug:
    """An entry made of (at, old, new)."""
    return Bug(name, "semantic", "x", "own", "x", "test", tuple(Edit(*edit) for edit in edits), custom)


def runtime_state() -> dict[str, object]:
    """What seeding can change: every function's code and defaults, and every constant, of the loaded runtime."""
    for entry in load_zoo():
        for edit in entry.edits:
            import_module(edit.at.partition(":")[0])  # before, for what is loaded later is not the same
    state: dict[str, object] = {}
    for module in runtime_modules():
        for name, value in vars(module).items():
            place = f"{module.__name__}:{name}"
            state[place] = repr(value) if isinstance(value, dict | list) and not name.startswith("__") else id(value)
            holder = vars(value) if inspect.isclass(value) and value.__module__ == module.__name__ else {name: value}
            for inner, function in holder.items():
                if isinstance(function, FunctionType):
                    state[f"{place}.{inner}"] = (function.__code__, function.__defaults__, function.__kwdefaults__)
    return state


# --- seeding


def test_a_seeded_function_does_the_other_thing_and_then_the_first_again() -> None:
    wrong = bug((f"{LAYERS}:softcap", "cap * torch.tanh(x / cap)", "x * torch.tanh(x / cap)"))
    x, want = torch.tensor(3.0), 2 * torch.tanh(torch.tensor(1.5))
    assert softcap(x, 2.0) == want
    with seeded(wrong):
        assert softcap(x, 2.0) == 3 * torch.tanh(torch.tensor(1.5))
        assert vars(nanollama.model.transformer)["softcap"] is softcap  # whoever imported it by name has the bug too
    assert softcap(x, 2.0) == want


def test_everything_is_restored_after_an_exception() -> None:
    before, code = runtime_state(), softcap.__code__
    with pytest.raises(ZeroDivisionError), seeded(bug((f"{LAYERS}:softcap", "torch.tanh(x / cap)", "torch.tanh(x * cap)"))):
        assert softcap.__code__ is not code
        raise ZeroDivisionError
    assert softcap.__code__ is code
    assert runtime_state() == before


def test_two_bugs_at_once_also_in_one_function() -> None:
    one = bug((f"{LAYERS}:softcap", "torch.tanh(x / cap)", "torch.tanh(x + cap)"))
    other = bug((f"{LAYERS}:softcap", "else cap *", "else x *"), (f"{LAYERS}:RMSNorm.forward", "1 + weight", "2 + weight"))
    x = torch.tensor(3.0)
    with seeded(one):
        first = softcap.__code__
        with seeded(other):
            assert softcap(x, 2.0) == 3 * torch.tanh(torch.tensor(5.0))
            assert "x + cap" in source_text(f"{LAYERS}:softcap")
        assert softcap.__code__ is first
        assert softcap(x, 2.0) == 2 * torch.tanh(torch.tensor(5.0))
    assert softcap(x, 2.0) == 2 * torch.tanh(torch.tensor(1.5))


def test_a_method_is_seeded_in_objects_that_exist_already() -> None:
    norm = RMSNorm(2, 0.0)
    norm.weight.data.fill_(1.0)
    x = torch.tensor([3.0, 4.0])
    before = norm(x)
    with seeded(bug((f"{LAYERS}:RMSNorm.forward", ".mean(-1", ".sum(-1"))):
        assert torch.allclose(norm(x), x / 5)
    assert torch.equal(norm(x), before)


def test_a_constructor_that_calls_super_can_be_seeded() -> None:
    with seeded(bug((f"{LAYERS}:RMSNorm.__init__", "self.eps = eps", "self.eps = 2 * eps"))):
        assert RMSNorm(2, 0.5).eps == 1.0
    assert RMSNorm(2, 0.5).eps == 0.5


def test_properties_cached_properties_and_methods_of_dataclasses_can_be_seeded() -> None:
    rope = RopeConfig(4, 10.0, "longrope")
    with seeded(bug(("nanollama.model.rope:RopeConfig.depends_on_length", ', "longrope"', ""))):
        assert not rope.depends_on_length
    assert rope.depends_on_length
    with seeded(bug(("nanollama.model.kv_cache:KVView.allowed", ", self.window)", ", 1)"))):
        assert KVView(torch.arange(3)[None], 3, None, torch.device("cpu")).allowed.sum() == 3
    with seeded(
        bug(("nanollama.generation.sampling:SamplingParams.__post_init__", "0 < self.temperature", "9 < self.temperature"))
    ):
        assert SamplingParams(temperature=1e-9).temperature == 1e-9


def test_static_methods_and_decorated_functions_can_be_seeded() -> None:
    edits = [
        ("nanollama.text.added_tokens:AddedTokens._pattern", "reverse=True", "reverse=False"),
        ("nanollama.generation.loop:decode", "-1 if row.done", "-2 if row.done"),
        ("nanollama.kernels.cpu:without_onednn", "enabled = before", "enabled = True"),
        ("nanollama.checkpoint.files:open_plain", "file.seek(0)", "file.seek(1)"),
    ]
    before = runtime_state()
    with seeded(bug(*edits)):
        assert "-2 if row.done" in source_text("nanollama.generation.loop:decode")
    assert runtime_state() == before


def test_a_function_in_a_table_is_seeded_in_the_table() -> None:
    rope = RopeConfig(4, 100.0, "linear", factor=2.0)
    with seeded(bug(("nanollama.model.rope:linear_frequencies", "/ rope.factor", "* rope.factor"))):
        assert FREQUENCIES["linear"](rope, 0)[0] == 2.0
    assert FREQUENCIES["linear"](rope, 0)[0] == linear_frequencies(rope, 0)[0] == 0.5


def test_default_arguments_can_be_seeded() -> None:
    encode = "nanollama.text.tokenizer:Tokenizer.encode"
    before = live_function(encode).__kwdefaults__
    with seeded(bug((encode, "parse_special: bool = False", "parse_special: bool = True"))):
        assert live_function(encode).__kwdefaults__ == {"add_special": True, "parse_special": True}
    assert live_function(encode).__kwdefaults__ is before


def test_constants_are_seeded_in_place_and_in_modules_that_imported_them() -> None:
    with seeded(
        bug(
            ("nanollama.model.activations:ACTIVATIONS", '"silu": F.silu', '"silu": F.relu'),
            ("nanollama.model.kv_cache:BUCKET", "= 64", "= 8"),
        )
    ):
        assert ACTIVATIONS["silu"] is torch.nn.functional.relu
        assert vars(nanollama.model.layers)["ACTIVATIONS"] is ACTIVATIONS
        assert vars(nanollama.model.kv_cache)["BUCKET"] == 8
    assert ACTIVATIONS["silu"] is torch.nn.functional.silu
    assert vars(nanollama.model.kv_cache)["BUCKET"] == BUCKET == 64


def test_what_a_bug_has_computed_does_not_outlive_it() -> None:
    with seeded(bug(("nanollama.quant.formats.rowwise:rowwise_format", 'Format("q8"', 'Format("q9"'))):
        assert rowwise_format("q8", 32).name == "q9"
    assert rowwise_format("q8", 32).name == "q8"


def test_a_bug_in_the_process_for_templates_is_in_new_processes_only() -> None:
    def render() -> str:
        return ChatTemplate("{{ tools | tojson }}").render([{"role": "user"}], tools=[{"b": 1, "a": 2}])

    assert render() == '[{"b": 1, "a": 2}]'
    with seeded(bug(custom="conformance.score.zoo.special:jinja_sorted_tojson")):
        assert render() == '[{"a": 2, "b": 1}]'
    assert render() == '[{"b": 1, "a": 2}]'


# --- a runtime that has moved on


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        ((f"{LAYERS}:softcap", "cap * tanh", ""), "is there 0 times"),
        ((f"{LAYERS}:softcap", "cap", "lid"), "times, expected once"),
        ((f"{LAYERS}:hardcap", "x", "y"), "'hardcap' is defined 0 times"),
        ((f"{LAYERS}:RMSNorm.backward", "x", "y"), "'backward' is defined 0 times"),
        (("nanollama.gone:softcap", "x", "y"), "there is no module nanollama.gone"),
        ((f"{LAYERS}:softcap", "cap * torch.tanh(x / cap)", "cap * ("), "it is no Python"),
        ((f"{LAYERS}:softcap", "cap * torch", "cap *  torch"), "changes nothing that runs"),
        ((f"{LAYERS}:RMSNorm", "self.eps = eps", "self.eps = 1"), "not a class"),
        (("nanollama.model.rope:RopeConfig.factor", "1.0", "2.0"), "not a class or its fields"),
    ],
)
def test_a_target_that_has_moved_breaks_the_zoo_and_changes_nothing(edit: tuple[str, str, str], problem: str) -> None:
    before = runtime_state()
    good = (f"{LAYERS}:RMSNorm.forward", "1 + weight", "2 + weight")
    with pytest.raises(ZooBroken, match=re.escape(problem)) as caught, seeded(bug(good, edit)):
        pytest.fail("was seeded")
    assert "zoo entry a-bug" in str(caught.value)
    assert runtime_state() == before


def test_a_custom_seed_that_is_gone_breaks_the_zoo() -> None:
    with pytest.raises(ZooBroken, match=r"a-bug.*special:gone"), seeded(bug(custom="conformance.score.zoo.special:gone")):
        pytest.fail("was seeded")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"kind": "strange"}, "of kind 'strange'"),
        ({"edit": []}, "either edits or custom"),
        ({"custom": "a:b"}, "either edits or custom"),
        ({"edits": 1}, r"has \['edits'\]"),
        ({"edit": [{"at": "a:b", "old": "x"}]}, "new"),
        ({"module": "("}, "missing"),
    ],
)
def test_an_entry_that_is_not_well_formed_is_refused(change: dict[str, object], problem: str) -> None:
    entry = {
        "name": "n",
        "kind": "semantic",
        "module": "m",
        "source": "own",
        "what": "W.",
        "edit": [{"at": "a:b", "old": "x", "new": "y"}],
    }
    assert read_entry(dict(entry), "area").edits == (Edit("a:b", "x", "y"),)
    with pytest.raises(ZooBroken, match=problem):
        read_entry(entry | change, "area")


def test_a_name_that_occurs_twice_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = '[[bug]]\nname="n"\nkind="decoy"\nmodule="m"\nsource="own"\nwhat="W."\ncustom="a:b"\n'
    (tmp_path / "rope.toml").write_text(text * 2)
    monkeypatch.setattr(entries, "BUGS", tmp_path)
    with pytest.raises(ZooBroken, match="n occurs 2 times"):
        load_zoo()
