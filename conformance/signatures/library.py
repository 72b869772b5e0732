"""All hypotheses for one model."""

from conformance.checks.cases import Case
from conformance.signatures import attention, blocks, norms, rotations, wiring
from conformance.signatures.fields import field_hypotheses
from conformance.signatures.hypotheses import SLIPS, Hypothesis, slips
from conformance.signatures.tensors import tensor_hypotheses

PARTS = (norms, rotations, attention, blocks, wiring)  # imported for the slips that they register


def library(case: Case) -> list[Hypothesis]:
    """Every way in which an engine may have gone wrong with this model, the more ordinary first."""
    assert SLIPS and PARTS
    tensors = case.truth.tensors
    return [*field_hypotheses(case.raw, case.spec), *slips(case.spec), *tensor_hypotheses(case.spec, tensors)]
