"""Tables of people's own become chat rows, or an error names the file, the row and the column."""

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pytest
from pyarrow import parquet

from karez.core.errors import BadRow, BrokenArtifact
from karez.studio.data.near_duplicates import group_near_duplicates
from tests.studio.tables import Prepare, as_csv, preparation, questions

PAIRS = questions(30)


@pytest.fixture
def prepare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepare:
    return preparation(tmp_path, monkeypatch)


def lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_parquet(columns: dict[str, Any], metadata: dict[str, Any] | None = None) -> bytes:
    made = arrow.table(columns)
    if metadata is not None:
        made = made.replace_schema_metadata({"huggingface": json.dumps(metadata)})
    out = io.BytesIO()
    parquet.write_table(made, out)
    return out.getvalue()


TEXTS, LABELS = [text for text, _ in PAIRS], [label for _, label in PAIRS]
CLASSES = {"info": {"features": {"label": {"_type": "ClassLabel", "names": sorted(set(LABELS))}}}}
NUMBERS = [sorted(set(LABELS)).index(label) for label in LABELS]
TALK = [
    {"messages": [{"role": "user", "content": t}, {"role": "assistant", "content": a}]}
    for t, a in PAIRS
]


@pytest.mark.parametrize(
    "files",
    [
        {"a.csv": as_csv(PAIRS)},
        {"a.csv": b"\xef\xbb\xbf" + as_csv(PAIRS)},
        {"a.csv": as_csv(PAIRS, end="\r\n")},
        {"a.csv": as_csv(PAIRS).decode().encode("utf-16")},
        {"a.csv": as_csv(PAIRS).replace(b",", b";")},
        {"a.csv": b"sep=;\r\n" + as_csv(PAIRS, end="\r\n").replace(b",", b";")},
        {"a.csv": b"sep=,,\r\n" + as_csv(PAIRS, end="\r\n")},
        {"a.csv": as_csv(PAIRS) + b"\n\n,\n"},
        {"a.csv.gz": gzip.compress(as_csv(PAIRS))},
        {"a.tsv": as_csv(PAIRS).replace(b",", b"\t")},
        {"a.csv": as_csv(PAIRS[:9]), "more/b.csv": as_csv(PAIRS[9:])},
        {"a.csv": as_csv(PAIRS), "names.json": b'["label0"]', "README.md": b"# mine"},
        {"a.jsonl": lines([{"prompt": t, "completion": a} for t, a in PAIRS])},
        {"a.jsonl": lines([{"instruction": t, "input": "", "output": a} for t, a in PAIRS])},
        {"a.jsonl": lines([{"Question": t, "Answer": a, "id": 1} for t, a in PAIRS])},
        {"a.jsonl": lines(TALK)},
        {
            "a.json": json.dumps(
                [
                    {"conversations": [{"from": "human", "value": t}, {"from": "gpt", "value": a}]}
                    for t, a in PAIRS
                ]
            ).encode()
        },
        {"a.json": lines(TALK)},
        {"a.parquet": as_parquet({"text": TEXTS, "label": LABELS})},
        {"a.parquet": as_parquet({"text": TEXTS, "label": NUMBERS}, CLASSES)},
        {"a.parquet": as_parquet({"messages": [row["messages"] for row in TALK]})},
    ],
    ids=str.split(
        "csv bom crlf utf16 semicolon excel padded blank-rows gz tsv two others completions alpaca "
        "case talks sharegpt lines-in-json parquet class-labels parquet-talks"
    ),
)
def test_the_same_rows_in_any_form_are_the_same_data_set(
    files: dict[str, bytes], prepare: Prepare
) -> None:
    made = prepare(files)
    assert made.all_pairs() == set(PAIRS)
    assert (made.card["facts"]["train_rows"], made.card["facts"]["held_out_rows"]) == (27, 3)
    assert made.card["facts"]["labels"] == 3
    assert made.card["name"] == "mine"
    assert not made.report["left_out"]


def test_a_cell_may_hold_line_breaks_quotes_and_separators(prepare: Prepare) -> None:
    odd = [*PAIRS, ('one "two",\nthree; vier\u2028fünf 六', "label0")]
    cells = "".join('"' + text.replace('"', '""') + f'",{label}\n' for text, label in odd)
    made = prepare({"a.csv": b"text,label\n" + cells.encode()})
    assert made.all_pairs() == set(odd)


def test_another_encoding_is_read_when_it_is_named(prepare: Prepare) -> None:
    pairs = [(f"第{text}个问题 怎么退货", f"退货{label}") for text, label in PAIRS]
    made = prepare({"a.csv": as_csv(pairs).decode().encode("gb18030")}, encoding="gb18030")
    assert made.all_pairs() == set(pairs)


def test_instruction_system_and_named_columns(prepare: Prepare) -> None:
    rows = [{"q": text, "a": label, "s": "Be brief."} for text, label in PAIRS]
    made = prepare({"a.jsonl": lines(rows)}, prompt="q", answer="a", system="s", instruction="Of?")
    row = made.rows("train")[0]
    assert [one["role"] for one in row] == ["system", "user", "assistant"]
    assert row[0]["content"] == "Be brief."
    assert {text.removeprefix("Of?\n") for text, _ in made.all_pairs()} == set(TEXTS)


def test_numbers_and_truth_are_answers_too(prepare: Prepare) -> None:
    rows = [{"text": text, "label": n % 2 == 0 if n % 3 else n} for n, text in enumerate(TEXTS)]
    answers = {answer for _, answer in prepare({"a.jsonl": lines(rows)}).all_pairs()}
    assert {"true", "false", "27"} <= answers


@pytest.mark.parametrize(
    ("files", "place", "problem"),
    [
        ({"a.csv": b""}, "a.csv", "no rows"),
        ({"a.csv": b"text,label\n"}, "a.csv", "no rows"),
        ({"a.csv": b"text,label\nx,y\nonly\n"}, "a.csv line 3", "1 cells"),
        ({"a.csv": b'text,label\n"a\nb",y\nx,y,z\n'}, "a.csv line 4", "3 cells"),
        ({"a.csv": b"text,text\nx,y\n"}, "a.csv line 1", "'text'"),
        ({"a.csv": b"text,\nx,y\n"}, "a.csv line 1", "no name"),
        ({"a.csv": b"text,label\rx,y\rz,y\r"}, "a.csv line 1", "carriage returns alone"),
        ({"a.csv": b"sep=|\ntext|label\nx|y\nonly\n"}, "a.csv line 4", "1 cells"),
        ({"a.csv": b"sep=\r\nq,a\r\nx,y\r\n"}, "a.csv line 2", "2 cells"),
        (
            {"a.json": b'{"text": "x", "label": "y"}\r{"text": "z", "label": "y"}\r'},
            "a.json line 1",
            "carriage returns alone",
        ),
        ({"a.json": b'{"text": "x", "label": "y"}\n[]\n'}, "a.json line 2", "list"),
        ({"a.csv": b'text,label\n"x,y\nz,y\n'}, "a.csv line 2", "unexpected end"),
        ({"a.csv": b"text,label\nok,y\n\xff\xfa,y\n"}, "a.csv line 3", "0xff, which is no UTF-8"),
        ({"a.csv": b"text,label\nok,\n"}, "a.csv line 2, label", "empty"),
        ({"a.csv": b"text,label\nok,NaN\n"}, "a.csv line 2, label", "NaN"),
        ({"a.jsonl": b'{"conversations": [{"from": ["x"], "value": "x"}]}'}, "a.jsonl", "['x']"),
        ({"a.csv": b"a,b\nx,y\n"}, "a.csv line 2", "not known; there is: a, b"),
        ({"a.csv": b"text,label\nx,y\n"}, "the data set", "none is left for held_out"),
        ({"a.csv": b"text,label\nab,y\ncd,y\nef,y\n"}, "the data set", "all 3 rows"),
        ({"a.jsonl": b'{"text": "x", "label": "y", "label": "z"}\n'}, "a.jsonl line 1", "twice"),
        ({"a.jsonl": b'{"text": "x"\n'}, "a.jsonl line 1", "no JSON"),
        ({"a.jsonl": b"[" * 100_000 + b"\n"}, "a.jsonl line 1", "no JSON"),
        ({"a.jsonl": b"3\n"}, "a.jsonl line 1", "int"),
        ({"a.jsonl": b'{"text": "x", "label": NaN}\n'}, "a.jsonl line 1, label", "NaN"),
        ({"a.jsonl": b'{"text": ["x"], "label": "y"}\n'}, "a.jsonl line 1, text", "list"),
        ({"a.jsonl": b'{"text": "\\ud800", "label": "y"}\n'}, "a.jsonl line 1", "half a pair"),
        ({"a.jsonl": b'{"messages": []}\n'}, "a.jsonl line 1, messages", "empty"),
        ({"a.json": b"{}"}, "a.json", "no array"),
        (
            {"a.jsonl": b'{"conversations": [{"from": "bot", "value": "x"}]}\n'},
            "a.jsonl line 1, conversations[0].from",
            "'bot'",
        ),
        ({"a.parquet": as_parquet({"text": ["a"], "label": [None]})}, "a.parquet row 1", "empty"),
        ({"a.parquet": as_parquet({"text": [b"a"], "label": ["b"]})}, "a.parquet row 1", "bytes"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(
    files: dict[str, bytes], place: str, problem: str, prepare: Prepare
) -> None:
    with pytest.raises(BadRow) as caught:
        prepare(files)
    assert caught.value.place.startswith(place)
    assert problem in caught.value.problem


def test_a_line_without_end_is_not_taken_into_memory(
    prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("karez.core.chat_rows.MAX_LINE", 1000)
    with pytest.raises(BadRow, match="longer than 1000 B"):
        prepare({"a.jsonl": b"x" * 5000})


@pytest.mark.parametrize("files", [{"a.parquet": b"no"}, {"a.csv.gz": b"no"}, {"notes.txt": b"no"}])
def test_what_is_no_table_is_refused(files: dict[str, bytes], prepare: Prepare) -> None:
    with pytest.raises(BrokenArtifact):
        prepare(files)


def test_bad_rows_are_dropped_on_demand_and_listed(prepare: Prepare) -> None:
    rows = as_csv([*PAIRS[:10], ("no label", ""), *PAIRS[10:], PAIRS[0]])
    made = prepare({"a.csv": rows}, bad_rows="drop")
    assert made.all_pairs() == set(PAIRS)
    assert made.report["left_out"] == {
        "cannot be used": {"rows": 1, "examples": ["a.csv line 12, label: it is empty"]},
        "equal to another row": {"rows": 1, "examples": [PAIRS[0][0]]},
    }
    assert made.card["facts"]["left_out_rows"] == 2


def test_near_duplicates_stay_on_one_side(prepare: Prepare) -> None:
    near = [(f"please tell me now: {text}{end}", label) for text, label in PAIRS for end in ".!?"]
    made = prepare({"a.csv": as_csv(near)}, held_out=0.3, validation=0.2)
    sides = {part: made.pairs(part) for part in ("train", "validation", "held_out")}
    assert all(sides.values())
    assert set().union(*sides.values()) == set(near)
    stems = [{text[:-1] for text, _ in pairs} for pairs in sides.values()]
    assert sum(map(len, stems)) == len(set().union(*stems)) == len(PAIRS)
    assert made.card["facts"]["near_duplicates"] == 2 * len(PAIRS)


def test_files_that_are_named_for_it_are_the_split_and_leaks_leave_training(
    prepare: Prepare,
) -> None:
    train = [*PAIRS[:20], (f"{PAIRS[25][0]}!", PAIRS[25][1])]
    made = prepare({"train.csv": as_csv(train), "test.csv": as_csv(PAIRS[20:])})
    assert made.pairs("held_out") == set(PAIRS[20:])
    assert made.pairs("train") == set(PAIRS[:20])
    left = made.report["left_out"]["near-duplicate of a row that is judged by"]
    assert left == {"rows": 1, "examples": [train[-1][0]]}


def test_validation_rows_come_from_training_rows_where_files_are_the_split(
    prepare: Prepare,
) -> None:
    files = {"train.csv": as_csv(PAIRS[:20]), "test.csv": as_csv(PAIRS[20:])}
    made = prepare(files, validation=0.2)
    assert made.pairs("held_out") == set(PAIRS[20:])
    assert made.pairs("train") | made.pairs("validation") == set(PAIRS[:20])
    assert len(made.pairs("validation")) == 4
    named = prepare({**files, "validation.csv": as_csv([("a new one", LABELS[0])])}, validation=0.2)
    assert named.pairs("validation") == {("a new one", LABELS[0])}


def test_folders_are_named_for_parts_too_and_held_out_rows_are_a_sample(prepare: Prepare) -> None:
    ordered = sorted(PAIRS, key=lambda pair: pair[1])
    made = prepare({"train/a.csv": as_csv(PAIRS[:6]), "test/a.csv": as_csv(ordered[6:])})
    assert made.pairs("held_out") == set(ordered[6:])
    assert {row[-1]["content"] for row in made.rows("held_out")[:12]} == set(LABELS)


def test_a_lone_file_is_split_whatever_its_name(prepare: Prepare) -> None:
    assert prepare({"test.csv": as_csv(PAIRS)}).card["facts"]["held_out_rows"] == 3


def test_what_a_later_row_has_is_read(prepare: Prepare) -> None:
    rows: list[dict[str, object]] = [{"instruction": t, "output": a} for t, a in PAIRS]
    rows[3] |= {"input": 7, "system": "Be brief."}
    made = prepare({"a.jsonl": lines(rows)})
    (found,) = [row for row in made.rows("train") + made.rows("held_out") if len(row) == 3]
    assert found[0] == {"role": "system", "content": "Be brief."}
    assert found[1]["content"] == f"{PAIRS[3][0]}\n7"


def test_the_instruction_stands_above_what_the_user_asks(prepare: Prepare) -> None:
    greeting = {"role": "assistant", "content": "Hello."}
    rows = [{"messages": [greeting, *row["messages"]]} for row in TALK]
    made = prepare({"a.jsonl": lines(rows)}, instruction="Which?")
    assert {row[0]["content"] for row in made.rows("train")} == {"Hello."}
    assert all(row[1]["content"].startswith("Which?\n") for row in made.rows("train"))


def test_templated_questions_are_grouped_in_time_that_grows_with_the_rows() -> None:
    texts = [f"My order number {n} has still not arrived at my address" for n in range(1000)]
    assert len(set(group_near_duplicates(texts, 0.7))) == 1


def test_one_question_with_two_answers_is_told(prepare: Prepare) -> None:
    made = prepare({"a.csv": as_csv([*PAIRS, (PAIRS[0][0], "label2")])})
    assert made.card["facts"]["contradicting_rows"] == 2
