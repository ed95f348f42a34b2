"""Runs on disk that were killed, interrupted or damaged."""

import contextlib
import errno
import json
import os
import shutil
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kills import contents, descend, without_patience

import gradflow as gf
from gradflow import _npz, _recording
from gradflow._run_files import RunFiles
from gradflow._run_page import arguments_of

CALLS = ("pwrite", "replace", "fsync", "ftruncate", "unlink")


@contextlib.contextmanager
def before_calls(hook):
    """Calls `hook` with the name before whatever changes a file."""
    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:

            def hooked(*arguments, _name=name, _call=getattr(os, name), **options):
                hook(_name)
                return _call(*arguments, **options)

            patch.setattr(os, name, hooked)
        yield


@contextlib.contextmanager
def impatient():
    patch = (_recording._PATIENCE, _recording._SECONDS)
    without_patience()
    try:
        yield
    finally:
        _recording._PATIENCE, _recording._SECONDS = patch


def snapshots_of(path, folder, is_wanted):
    """Makes the run, and copies what a kill would leave behind at each of the calls
    that are wanted, by number."""
    number = 0
    copies = []

    def copy(name):
        nonlocal number
        number += 1
        if is_wanted(number) and path.exists():
            copies.append(folder / f"{number}-{name}")
            shutil.copytree(path, copies[-1])

    with impatient(), before_calls(copy):
        descend(path)
    return copies


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def whole(folder):
    """A run that came to its end in one go."""
    descend(folder / "whole")
    return folder / "whole"


@pytest.fixture(scope="module")
def killed(folder, whole):
    """What kills at some moments have left."""
    # The first calls, those round the first checkpoints, and then some.
    wanted = {*range(1, 40, 3), *range(40, 1500, 127)}
    return snapshots_of(folder / "slow", folder, wanted.__contains__)


def test_going_on_after_a_kill(killed, whole, tmp_path):
    expected = contents(whole)
    for copy in killed:
        path = shutil.copytree(copy, tmp_path / copy.name)
        descend(path)
        assert contents(path) == expected, copy.name
        assert not list(path.glob("*.part"))
