"""The parts of the report, one file each.

A file's `part(...)` takes plain values, the content of `metrics.json` or Arrow tables. It returns
the part, or None where there is nothing to show. The caller of `page.write` lists the parts.
"""

from sie_jax.report.sections import calibration as calibration
from sie_jax.report.sections import chain as chain
from sie_jax.report.sections import chats as chats
from sie_jax.report.sections import choosing as choosing
from sie_jax.report.sections import cleaning as cleaning
from sie_jax.report.sections import comparison as comparison
from sie_jax.report.sections import confusion as confusion
from sie_jax.report.sections import contest as contest
from sie_jax.report.sections import cost as cost
from sie_jax.report.sections import cross_validation as cross_validation
from sie_jax.report.sections import explanations as explanations
from sie_jax.report.sections import groups as groups
from sie_jax.report.sections import hits as hits
from sie_jax.report.sections import intents as intents
from sie_jax.report.sections import nested as nested
from sie_jax.report.sections import noise as noise
from sie_jax.report.sections import overfitting as overfitting
from sie_jax.report.sections import pretraining as pretraining
from sie_jax.report.sections import queries as queries
from sie_jax.report.sections import rankers as rankers
from sie_jax.report.sections import recommendations as recommendations
from sie_jax.report.sections import results as results
from sie_jax.report.sections import retrieval as retrieval
from sie_jax.report.sections import robustness as robustness
from sie_jax.report.sections import scores as scores
from sie_jax.report.sections import searches as searches
from sie_jax.report.sections import settings as settings
from sie_jax.report.sections import slices as slices
from sie_jax.report.sections import suspicious as suspicious
from sie_jax.report.sections import training as training
from sie_jax.report.sections import tuning as tuning
from sie_jax.report.sections import users as users
from sie_jax.report.sections import verdict as verdict
from sie_jax.report.sections import weights as weights
