"""Temporary."""

from pipeline.planner import Plan


def make_plan(job, instrument):
    return Plan()


def plan_table(plan):
    return str(plan)
