"""Bytes, FLOPs, memory and time of a run, and the strategy they imply, before any work starts."""

from pipeline.planner.facts import JobFacts
from pipeline.planner.limits import LimitsOptions
from pipeline.planner.machine import Machine, read_machine
from pipeline.planner.make import make_plan
from pipeline.planner.plan import Plan

__all__ = ["JobFacts", "LimitsOptions", "Machine", "Plan", "make_plan", "read_machine"]
