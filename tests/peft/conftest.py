"""Helpers and scripts of these tests, which are collected for their doctests, need PEFT."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore = [] if find_spec("peft") else ["distributed_script.py", "tiny.py", "trainer_script.py"]
