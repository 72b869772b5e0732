"""All hypotheses for one model."""

from conformance.diagnosis.causes.hypotheses import attention, blocks, norms, rotations, wiring
from conformance.diagnosis.causes.hypotheses.fields import field_hypotheses
from conformance.diagnosis.causes.hypotheses.hypothesis import SLIPS, Hypothesis, slips
from conformance.diagnosis.causes.hypotheses.tensors import tensor_hypotheses
from conformance.truth.cases import Case

PARTS = (norms, rotations, attention, blocks, wiring)  # imported for the slips that they register


def library(case: Case) -> list[Hypothesis]:
    """Every hypothesis for this model, the more common first."""
    assert SLIPS and PARTS
    tensors = case.truth.tensors
    return [*field_hypotheses(case.raw, case.spec), *slips(case.spec), *tensor_hypotheses(case.spec, tensors)]
