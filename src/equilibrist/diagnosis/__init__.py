"""From a verdict to a cause: what is wrong with a training loop, by name, with evidence and a cure."""

from equilibrist.diagnosis.averages import check_average
from equilibrist.diagnosis.diagnose import Diagnosis, diagnose
from equilibrist.diagnosis.latents import check_latent
from equilibrist.diagnosis.loop import Loop, Samples, first_of, modules_of
from equilibrist.diagnosis.numerics import check_finite, check_single
from equilibrist.diagnosis.resume import ResumeCheck, check_resume
from equilibrist.diagnosis.samples import check_diversity
from equilibrist.diagnosis.step_size import check_step_size
from equilibrist.diagnosis.terms import check_terms
from equilibrist.diagnosis.wiring import Wiring, check_wiring
from equilibrist.findings import VOCABULARY, Finding, ordered

__all__ = [
    "VOCABULARY",
    "Diagnosis",
    "Finding",
    "Loop",
    "ResumeCheck",
    "Samples",
    "Wiring",
    "check_average",
    "check_diversity",
    "check_finite",
    "check_latent",
    "check_resume",
    "check_single",
    "check_step_size",
    "check_terms",
    "check_wiring",
    "diagnose",
    "first_of",
    "modules_of",
    "ordered",
]
