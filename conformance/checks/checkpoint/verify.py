"""`nanollama verify`: the first place that differs is reported, and nothing else."""

import contextlib
import io
import json

from conformance.checks import check
from conformance.checks.assertions import at, expect, expect_equal
from conformance.models.fixtures import fixture_config, write_fixture
from conformance.truth.cases import case, workplace
from conformance.truth.compare import SEMANTIC_BAR
from conformance.verify.compare_models import verify_command

LLAMA = "LlamaForCausalLM"


def verdict(key: str, value: object) -> tuple[int, str]:
    """Exit status and last line of verify for a fixture and the same with one key changed."""
    other = workplace() / f"verify-{key}"
    write_fixture(other, fixture_config(LLAMA, **{key: value}))
    out = io.StringIO()
    with at("verify"), contextlib.redirect_stdout(out):
        status = verify_command(str(case(LLAMA).folder), str(other), "float64", SEMANTIC_BAR, None, None, 0)
    return status, out.getvalue().strip().splitlines()[-1]


@check("VRFY-002", area="numerics")
def two_models_differ_at_the_first_place() -> None:
    raw = fixture_config(LLAMA)
    status, last_line = verdict("initializer_range", 0.5)
    expect_equal("verify", (status, last_line.startswith("SAME")), (0, True), f"two equal models: {last_line}")
    for key, value, place in (
        ("rms_norm_eps", raw["rms_norm_eps"] * 1.01, "layers.0.input_layernorm"),
        ("hidden_act", "relu", "layers.0.mlp"),
        ("rope_parameters", json.loads(json.dumps(raw["rope_parameters"])) | {"rope_theta": 12346.0}, "rotary.0"),
    ):
        status, last_line = verdict(key, value)
        expect(
            "verify",
            status == 1 and last_line.startswith("DIFFERENT: ") and place in last_line,
            f"another {key}: status {status}, {last_line!r}",
        )
