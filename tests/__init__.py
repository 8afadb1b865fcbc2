"""Behaviour tests: functions are staged, started and called as OpenFaaS does it."""
