"""Plans as TOML: what is read, and what is refused in one line."""

from pathlib import Path

import pytest

from fgdiag.training import Plan, Stage
from fgdiag.training.plan import PlanNotUsable


def test_a_plan_is_read_from_toml(tmp_path: Path):
    file = tmp_path / "plan.toml"
    file.write_text(
        'views = 3\nask = {fine = 1}\n[[stage]]\ntrain = ["projector"]\nepochs = 2\n'
        '[[stage]]\ntrain = ["llm-lora"]\nminutes = 5\nlearning_rate = 2e-4\n'
    )
    expected = Plan(
        (Stage(epochs=2), Stage(("llm-lora",), minutes=5, learning_rate=2e-4)), {"fine": 1}, views=3
    )
    assert Plan.read(file) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("view = 3", "A plan has no 'view'; expected some of ask, batch_size"),
        ("[[stage]]\nepoch = 3", "A stage has no 'epoch'"),
        ("[[stage]]\nepochs = 3\nminutes = 2", "expected one of epochs, steps and minutes"),
        ('[[stage]]\nepochs = 3\ntrain = ["eyes"]', "A stage trains 'eyes'; expected some of projector"),
        ('[[stage]]\nepochs = 3\ntrain = ["llm", "llm-lora"]', "expected one of the two"),
        ("ask = {colour = 1}", "expected shares above 0 of some of fine, coarse"),
        ("views = [", "cannot be read as a plan"),
        ('[[stage]]\nepochs = "six"', "A stage has epochs = 'six'; expected a number"),
        ('views = "three"', "A plan has views = 'three'; expected a whole number"),
        ("ask = {fine = true}", "A plan has fine = True; expected a number"),
        ("stage = 3", "A plan has stage = 3; expected one or more tables"),
        ("[[stage]]\nepochs = 3\ntrain = 5", "A stage has train = 5; expected some of projector"),
        ('ask = ["fine"]', r"A plan has ask = \['fine'\]; expected shares"),
        ("ask = {fine = -1}", "A plan has fine = -1; expected a number, 0 or more"),
        ("[[stage]]\nsteps = 2.5", "A stage has steps = 2.5; expected a whole number, 1 or more"),
        ("batch_size = 2.5", "A plan has batch_size = 2.5; expected a whole number, 1 or more"),
        ("views = 0", "A plan has views = 0; expected a whole number, 1 or more"),
        ("seed = -1", "A plan has seed = -1; expected a whole number, 0 or more"),
        (
            "[[stage]]\nepochs = 3\npatience = -1",
            "A stage has patience = -1; expected a whole number, 0 or more",
        ),
        (
            "[[stage]]\nepochs = 3\nlora_rank = 0",
            "A stage has lora_rank = 0; expected a whole number, 1 or more",
        ),
        ("[[stage]]\nepochs = nan", "A stage has epochs = nan; expected a number"),
        ("[[stage]]\nminutes = inf", "A stage has minutes = inf; expected a number"),
        ("[[stage]]\nepochs = 3\nlearning_rate = -1", "A stage has learning_rate = -1; expected a number"),
    ],
)
def test_a_plan_that_cannot_be_meant_is_refused(text: str, said: str, tmp_path: Path):
    (tmp_path / "plan.toml").write_text(text)
    with pytest.raises(PlanNotUsable, match=said):
        Plan.read(tmp_path / "plan.toml")
