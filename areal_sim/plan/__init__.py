"""The planner: a question in plain numbers, answered with the cluster to rent and how to run it.

`Question` says what is asked, `plan` answers with a `Plan`, or raises `Infeasible`.
"""

from areal_sim.plan.answer import Plan, plan
from areal_sim.plan.finding import Finding
from areal_sim.plan.infeasible import Infeasible
from areal_sim.plan.question import Offer, Question, offers

__all__ = ["Finding", "Infeasible", "Offer", "Plan", "Question", "offers", "plan"]
