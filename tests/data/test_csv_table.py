import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.data.table import TableOptions, build
from pipeline.types import InputError


@pytest.fixture
def camera(tmp_path, jpeg, put):
    """A table like iWildCam's: images by camera; returns a writer of its rows."""

    def write(rows, header="path,label,domain,split"):
        lines = [header]
        for i, row in enumerate(rows):
            put(tmp_path / f"{i}.jpg", jpeg(i))
            lines.append(f"{i}.jpg,{row}")
        (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
        return str(tmp_path / "table.csv")

    return write


ROWS = [
    *["10,north,train", "2,south,train"] * 5,
    "2,north,id_val",
    "10,south,id_test",
    "2,east,test",
    "10,west,test",
    "2,east,val",
]
MAPPED = {"id_val": "val", "test": "ood_test", "val": None}


def test_a_table_becomes_splits_with_domains(camera):
    built = build(TableOptions(path=camera(ROWS), splits=MAPPED))
    sizes = {name: len(split) for name, split in built.splits.items()}
    assert sizes == {"train": 10, "val": 1, "id_test": 1, "ood_test": 2}
    assert built.classes == ["2", "10"]
    assert built.group_names == ("east", "north", "south", "west")
    for split in built.splits.values():
        for name, label, group in zip(split.ids, split.labels, split.groups, strict=True):
            row = ROWS[int(name.removesuffix(".jpg"))].split(",")
            assert [built.classes[label], built.group_names[group]] == row[:2]


def test_columns_may_have_other_names_and_no_domain(camera):
    rows = ["cat,train", "dog,train", "cat,id_test"]
    path = camera(rows, header="file,animal,part")
    columns = {"path": "file", "label": "animal", "domain": None, "split": "part"}
    built = build(TableOptions(path=path, columns=columns, holdout=0))
    assert built.group_names == ()
    assert built.classes == ["cat", "dog"]
    with pytest.raises(InputError, match="no column path, label, domain, split; its columns are f"):
        build(TableOptions(path=path))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["1,a,train", "2,a,elsewhere"], "split 'elsewhere' is none of"),
        (["1,a,train", "2,a,ood_x"], "split ood_x has labels that no training row has: 2"),
        (["1,a,id_test"], "no row of split train"),
        (["1,a,train", ",a,train"], "line 3: a value is missing"),
        (["1,a,train", "1,a"], "line 3: a value is missing"),
    ],
)
def test_rows_that_do_not_fit_are_refused(camera, rows, message):
    with pytest.raises(InputError, match=message):
        build(TableOptions(path=camera(rows), holdout=0))


def test_whole_numbers_written_as_floats_are_the_same_classes(camera):
    rows = ["1.0,a,train", "2.0,a,train", "1,b,id_test"]
    assert build(TableOptions(path=camera(rows), holdout=0)).classes == ["1", "2"]
    with pytest.raises(InputError, match=r"line 3: the label 0\.5 is no class"):
        build(TableOptions(path=camera(["1.0,a,train", "0.5,a,train"]), holdout=0))


def test_a_nan_in_a_parquet_table_is_a_missing_value(tmp_path):
    columns = {"path": ["a", "b"], "label": [1.0, float("nan")], "split": ["train"] * 2}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises(InputError, match=r"x\.parquet, row 1: a value is missing"):
        build(TableOptions(path=str(tmp_path / "x.parquet"), columns={"domain": None}))


def test_a_column_named_twice_is_refused(camera):
    path = camera(["1,a,train,2"], header="path,label,domain,split,label")
    with pytest.raises(InputError, match=r"table\.csv has the column label twice"):
        build(TableOptions(path=path))


def test_an_empty_file_is_no_table_without_columns(tmp_path):
    (tmp_path / "x.csv").write_text("")
    with pytest.raises(InputError, match=r"x\.csv is empty: expected a line of column names"):
        build(TableOptions(path=str(tmp_path / "x.csv")))


@pytest.mark.parametrize("row", ['"1,a,train', '1,a,"train'])
def test_an_unclosed_quote_is_found_where_it_opens(camera, row):
    path = camera(["1,a,train", row, "2,b,train", "2,b,id_test"])
    with pytest.raises(InputError, match=r"a quote is not closed .* starts at line 3\)"):
        build(TableOptions(path=path))


def test_values_of_several_lines_are_read_and_counted(camera):
    path = camera(['1,"a\nb",train\n', ",c,train"])  # a blank line between the two
    with pytest.raises(InputError, match="line 5: a value is missing"):
        build(TableOptions(path=path))


def test_a_listed_image_that_is_missing_is_named_or_skipped(camera, tmp_path):
    path = camera(["1,a,train", "1,b,train", "1,a,id_test", "2,a,train"])
    (tmp_path / "1.jpg").unlink()
    with pytest.raises(InputError, match=r"1\.jpg: No such file"):
        build(TableOptions(path=path, holdout=0))
    built = build(TableOptions(path=path, holdout=0, on_bad="skip"))
    assert len(built.splits["train"]) == 2


def test_a_file_that_is_no_table_is_refused(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match="no CSV table"):
        build(TableOptions(path=str(tmp_path / "x.csv")))
