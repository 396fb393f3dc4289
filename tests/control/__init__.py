"""Tests of the control API, over HTTP."""
