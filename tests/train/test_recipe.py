from __future__ import annotations

from pathlib import Path

import pytest

from deblurd.errors import ConfigError, NoInputError
from deblurd.train.recipe import Recipe, load_recipe, shipped

KINDS = "".join("[[network.kinds]]\nname = '{}'\nblur_px = {}\n" for _ in range(2))
HEAD = 'name = "x"\nversion = "1.0.0"\ndescription = "d"\n'


@pytest.mark.parametrize("name", shipped())
def test_shipped_recipes_are_valid_and_carry_their_own_name(name: str) -> None:
    assert load_recipe(Path(name)).name == name


def test_a_recipe_file_is_read_with_defaults(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(HEAD + "[fit]\nsteps = 7\n", "utf-8")
    recipe = load_recipe(path)
    assert recipe.fit.steps == 7
    assert recipe == Recipe.model_validate(recipe.model_dump(mode="json"))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (HEAD + "[fit]\nstepz = 7\n", "unknown key fit.stepz"),
        (HEAD + "[fit]\nsteps = 0\n", "fit.steps"),
        (HEAD + "[degrade]\nblur_px = [9, 3]\n", r"blur_px must be \[low, high\]"),
        (HEAD + "[degrade]\nfield_px = 30\n", "degrade.field_px"),
        (HEAD + "[degrade]\nnsr = nan\n", "degrade.nsr"),
        ("name = ", "not TOML"),
        ('name = "Bad Name"\n', "name"),
        (HEAD + '[network]\nkind = "u-net"\n', "network.kind"),
        (HEAD + KINDS.format("a", "[1, 9]", "b", "[9, 3]"), r"kinds.1: .*blur_px must be \[low, high\]"),
        (HEAD + KINDS.format("a", "[1, 9]", "a", "[9, 30]"), "a name of its own"),
        (HEAD + KINDS.format("a", "[1, 9]", "../b", "[9, 30]"), "network.kinds.1.name"),
        (HEAD + "[[network.kinds]]\nname = 'a'\nblur_px = [1, 9]\nangle_deg = [0, 200]\n", "at most 180"),
        (HEAD + '[degrade]\nfield_px = 40\n[network]\nkind = "hourglass"\n', "multiple of 16"),
    ],
)
def test_broken_recipes_are_refused_in_words(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=complaint):
        load_recipe(path)


def test_a_missing_recipe_names_those_that_exist() -> None:
    with pytest.raises(NoInputError, match="fast"):
        load_recipe(Path("nonesuch"))
    with pytest.raises(NoInputError, match="fast"):
        load_recipe(Path("nonesuch.toml"))


def test_a_scene_has_room_for_the_longest_blur() -> None:
    degrade = load_recipe(Path("fast")).degrade
    longest = degrade.blur_px[1] * (0.5 + degrade.bend_max * 2 / 3)
    assert degrade.margin_px >= longest + 1
    assert degrade.scene_px == degrade.field_px + 2 * (degrade.guard_px + degrade.margin_px)


def test_bank_costs_what_fast_costs_at_run_time() -> None:
    bank, fast = (load_recipe(Path(name)) for name in ("bank", "fast"))
    assert len(bank.network.kinds) > 1
    assert bank.network.model_copy(update={"kinds": ()}) == fast.network
    assert bank.fit.start == fast.name
