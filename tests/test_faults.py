"""The lists that ``python -m tests.faults`` judges by, and how it ends."""

import pytest
from faults import __main__ as program
from faults.rules import CSRC, SUFFIXES, faults_of, listed


def test_every_fault_that_is_explained_is_one():
    """A line that has changed wants another look, or its reason goes."""
    faults = {fault.key for path in CSRC.rglob("*") if path.suffix in SUFFIXES for fault in faults_of(path)}
    assert listed("faults_unnoticed") - faults == set()


def test_files_that_are_held_exist():
    assert [file for file in listed("faults_held") if not (CSRC / file).is_file()] == []


FILE = "cpu/bins.h"  # has nothing but what a switch can plant


@pytest.mark.parametrize(
    ("held", "explained", "notices", "ends_with"),
    [
        (True, False, None, 1),
        (True, False, "a test", 0),
        (True, True, None, 0),
        (False, False, None, 0),
    ],
)
def test_only_an_unexplained_fault_that_nothing_notices_in_a_held_file_ends_with_1(
    held, explained, notices, ends_with, monkeypatch
):
    lists = {
        "faults_held": {FILE} if held else set(),
        "faults_unnoticed": {fault.key for fault in faults_of(CSRC / FILE)} if explained else set(),
    }
    monkeypatch.setattr(program, "listed", lists.__getitem__)
    monkeypatch.setattr(program, "judged", lambda faults, *_, **__: [(fault, notices) for fault in faults.values()])
    assert program.main([FILE]) == ends_with
