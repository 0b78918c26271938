"""The loss of detectors' heads warns once where a hundred steps in a row had no positive, and asks no device for it."""

import copy
import pickle
import warnings

import pytest

pytest.importorskip("torchvision")

import torch
from detectors import CASES, batch
from dispatched import recorded

from alrp_cuda.integrations.ranking import PATIENCE, RANKINGS, RankingLoss
from alrp_cuda.integrations.torchvision import use_alrp

WORDS = "no positive in 100 training steps in a row.*docs/troubleshooting.md"


def step(loss, positives=0):
    classes = torch.full((10,), 2)
    classes[:positives] = 0
    boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0]]).repeat(positives, 1)
    return loss(torch.zeros(10, 2, requires_grad=True), classes, (boxes + 1).requires_grad_(), boxes)


def warned(loss, steps, positives=0):
    """How many warnings there are in so many steps."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(steps):
            step(loss, positives)
    return len(caught)


@pytest.mark.parametrize("name", RANKINGS)
def test_it_warns_once_after_a_hundred_steps_in_a_row(name):
    loss = RankingLoss(loss=name)
    assert warned(loss, PATIENCE - 1) == 0
    with pytest.warns(UserWarning, match=WORDS):
        step(loss)
    assert warned(loss, 2 * PATIENCE) == 0
    assert warned(loss, 1, positives=3) == 0
    assert warned(loss, 2 * PATIENCE) == 0


def test_a_positive_begins_anew():
    loss = RankingLoss()
    for _ in range(3):
        assert warned(loss, PATIENCE - 1) == 0
        assert warned(loss, 1, positives=1) == 0


def test_steps_that_do_not_train_do_not_count():
    loss = RankingLoss()
    with torch.no_grad():
        assert warned(loss, PATIENCE) == 0
    assert warned(loss.eval(), PATIENCE) == 0
    assert warned(loss.train(), PATIENCE) == 1


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda loss: pickle.loads(pickle.dumps(loss))])
def test_copies_go_on_and_checkpoints_hold_nothing_of_it(duplicate):
    loss = RankingLoss(balance="self")
    keys = list(loss.state_dict())
    assert warned(loss, PATIENCE - 1) == 0
    assert list(loss.state_dict()) == keys == ["balance.weight", "balance.sums", "balance.iteration"]
    twin = duplicate(loss)
    assert warned(twin, 1) == warned(loss, 1) == 1
    assert warned(duplicate(twin), PATIENCE) == 0


@pytest.mark.parametrize("positives", [0, 3])
@pytest.mark.parametrize("name", RANKINGS)
def test_counting_runs_no_operator(name, positives, monkeypatch):
    loss = RankingLoss(loss=name)
    with recorded() as operators:
        step(loss, positives)
    monkeypatch.setattr(RankingLoss, "_count_step", lambda self, positives: None)
    with recorded() as without:
        step(loss, positives)
    assert operators == without != []


def test_compiled_code_has_no_graph_break():
    torch._dynamo.reset()  # what another test compiled is no recompilation
    loss = RankingLoss()
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        assert [compiled_loss.item() for compiled_loss in step(compiled, 3)] == [own.item() for own in step(loss, 3)]
        for _ in range(3):
            step(compiled, 3)


@pytest.mark.parametrize("name", ["retinanet", "faster rcnn"])
def test_detectors_warn(name, monkeypatch):
    monkeypatch.setattr("alrp_cuda.integrations.ranking.PATIENCE", 3)
    build, own, first_label = CASES[name]
    model = use_alrp(build(), **own).train()
    images, targets = batch(0, 0, first_label=first_label)
    for _ in range(2):
        model(images, targets)
    with pytest.warns(UserWarning, match=WORDS.replace("100", "3")) as caught:
        model(images, targets)
    assert len(caught) == {"retinanet": 1, "faster rcnn": 2}[name]  # a head each
