import json

import numpy as np
import pytest

from pipeline.data.breeds import BreedsOptions, build, class_names
from pipeline.data.breeds_hierarchy import ROOT, Hierarchy, Superclass, superclasses
from pipeline.types import InputError

BRANCHES = {"cat": ["c1", "c2", "c3", "c4"], "dog": ["d1", "d2"], "bird": ["b1"]}


@pytest.fixture
def hierarchy(tmp_path):
    """root → n00004258 → a chain of two nodes → three superclasses; one has too few classes."""
    edges = [(ROOT, "n00004258"), ("n00004258", "x"), ("x", "y"), ("y", "animal"), ("y", "plant")]
    edges += [("y", "rock"), ("rock", "r1"), ("animal", "alone"), ("unused", "nothing")]
    edges += [("alone", name) for name in BRANCHES]
    edges += [(name, leaf) for name, leaves in BRANCHES.items() for leaf in leaves]
    edges += [("plant", f"p{i}") for i in range(5)] + [("y", "p0")]
    leaves = sorted({leaf for leaves in BRANCHES.values() for leaf in leaves})
    leaves += [*(f"p{i}" for i in range(5)), "r1"]
    folder = tmp_path / "hierarchy"
    folder.mkdir()
    info = [[i, leaf, leaf] for i, leaf in enumerate(leaves)]
    (folder / "dataset_class_info.json").write_text(json.dumps(info))
    (folder / "class_hierarchy.txt").write_text("".join(f"{a} {b}\n" for a, b in edges))
    (folder / "node_names.txt").write_text("animal\tanimal, beast\nplant\tplant\n")
    return folder


def drawn(folder, split):
    return superclasses(Hierarchy.read(folder), level=4, size=4, split=split, ancestor="n00004258")


def test_superclasses_are_the_nodes_at_the_depth_with_enough_classes(hierarchy):
    found = drawn(hierarchy, "rand")
    assert [each.wnid for each in found] == ["animal", "plant"]
    assert [each.name for each in found] == ["animal, beast", "plant"]


def test_random_sides_are_one_generators_draws_in_the_order_of_ids(hierarchy):
    rng = np.random.RandomState(2)
    animals = sorted(leaf for leaves in BRANCHES.values() for leaf in leaves)
    plants = [f"p{i}" for i in range(5)]
    for each, leaves in zip(drawn(hierarchy, "rand"), (animals, plants), strict=True):
        expected = list(rng.choice(leaves, 4, replace=False))
        assert each.source + each.target == expected


def test_good_sides_share_every_branch_and_bad_sides_do_not(hierarchy):
    good, bad = drawn(hierarchy, "good")[0], drawn(hierarchy, "bad")[0]
    assert (good.source, good.target) == (["c1", "c2"], ["c3", "c4"])
    assert (bad.source, bad.target) == (["c1", "c2"], ["d1", "d2"])


def test_two_superclasses_of_one_name_are_told_apart():
    found = [Superclass(wnid, "crane, bird", [], []) for wnid in ("n1", "n2")]
    assert class_names(found) == ["crane (n1)", "crane (n2)"]


def test_the_task_reads_the_folders_that_the_rule_names(
    hierarchy, tmp_path, write_tree, monkeypatch
):
    monkeypatch.setitem(build.__globals__["RULES"], "living17", (2, 4, 4, "n00004258"))
    found = drawn(hierarchy, "rand")
    source = [leaf for each in found for leaf in each.source]
    target = [leaf for each in found for leaf in each.target]
    root = tmp_path / "imagenet"
    write_tree(root / "train", dict.fromkeys(source, 5))
    write_tree(root / "val", dict.fromkeys(source + target, 2), first=1000)
    options = BreedsOptions(path=str(root), task="living17", hierarchy=str(hierarchy))
    built = build(options)
    assert built.classes == ["animal", "plant"]
    assert {n: len(s) for n, s in built.splits.items()} == {
        "train": 18,
        "val": 2,
        "id_test": 8,
        "ood_test": 8,
    }
    assert {i.split("/")[1] for i in built.splits["ood_test"].ids} == set(target)
    with pytest.raises(InputError, match="lacks 4 of 4 class folders"):
        build(options.model_copy(update={"split": "bad", "path": str(_without_val(root))}))


def _without_val(root):
    for folder in (root / "train").iterdir():
        folder.rename(folder.with_name(f"other_{folder.name}"))
    return root


def test_a_hierarchy_without_its_files_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"lacks dataset_class_info\.json"):
        Hierarchy.read(tmp_path)


def test_edges_in_a_circle_are_refused(hierarchy):
    with (hierarchy / "class_hierarchy.txt").open("a") as file:
        file.write("animal y\n")
    with pytest.raises(InputError, match="form a circle"):
        drawn(hierarchy, "rand")


def breeds(folder, tmp_path, **changes):
    (tmp_path / "imagenet").mkdir(exist_ok=True)
    given = {"path": str(tmp_path / "imagenet"), "task": "living17", "hierarchy": str(folder)}
    return BreedsOptions(**(given | changes))


def test_another_hierarchy_of_the_authors_is_refused_by_its_number_of_superclasses(
    hierarchy, tmp_path, monkeypatch
):
    monkeypatch.setitem(build.__globals__["RULES"], "living17", (17, 4, 4, "n00004258"))
    message = r"hierarchy is not the hierarchy .* living17 2 superclasses, .* 17\. .*`modified`"
    with pytest.raises(InputError, match=message):
        build(breeds(hierarchy, tmp_path))


def test_a_class_that_is_source_and_target_is_refused(hierarchy, tmp_path, monkeypatch):
    monkeypatch.setitem(build.__globals__["RULES"], "living17", (2, 4, 4, "n00004258"))
    with (hierarchy / "class_hierarchy.txt").open("a") as file:
        file.writelines(f"plant {leaf}\n" for leaf in ("c1", "c2", "c3", "c4", "d1", "d2"))
    with pytest.raises(
        InputError, match=r"class\(es\) are source and target, such as .*`modified`"
    ):
        build(breeds(hierarchy, tmp_path, split="bad"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "class_hierarchy.txt",
            "",
            r"class_hierarchy\.txt holds no entry. It should hold lines of two",
        ),
        ("class_hierarchy.txt", "a b\nc\n", r"class_hierarchy\.txt: line 2 has 1 words"),
        ("dataset_class_info.json", "{}", r"dataset_class_info\.json: a list was expected"),
        ("dataset_class_info.json", "[]", r"dataset_class_info\.json holds no entry"),
        ("dataset_class_info.json", '["n01440764"]', r"found the entry 'n01440764'"),
        ("dataset_class_info.json", "[[0, ", r"cannot read .*dataset_class_info\.json"),
        ("node_names.txt", "no tabs here", r"node_names\.txt holds no entry"),
    ],
)
def test_a_file_of_the_hierarchy_that_holds_something_else_is_named(hierarchy, name, text, message):
    (hierarchy / name).write_text(text)
    with pytest.raises(InputError, match=message):
        Hierarchy.read(hierarchy)
