"""What a caller may choose: templates, filters, encodings, and what becomes of long texts."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from omi_async.sources import open_facts
from omi_async.sources._sentences import sentences, split
from tests.sources.source_reading import read

JOBS = "Title,Company Name,Started On,Tags\nNurse,St. Olavs,Jan 2020,work\nBaker, ,,\n,Ikea,,\nCook,Ikea,,\n"
SINCE = "User worked as {Title} at {Company Name}[ since {Started On}]"


def test_a_template_makes_a_text_of_a_row() -> None:
    found = read(JOBS, "jobs.csv", template=SINCE)
    assert found.texts == ["User worked as Nurse at St. Olavs since Jan 2020", "User worked as Cook at Ikea"]
    assert found.facts[0].tags == ("work",)
    assert found.reasons == [
        "jobs.csv:3: content: 'Company Name' is empty, and the template needs it; [...] makes it optional",
        "jobs.csv:4: content: 'Title' is empty, and the template needs it; [...] makes it optional",
    ]


def test_a_template_makes_a_text_of_an_object() -> None:
    records = [
        {"name": "Tea", "n": 5, "of": {"x": ["a", "b"]}, "no": None},
        {"name": "Tea", "n": {}, "of": {}},
    ]
    found = read("\n".join(map(json.dumps, records)), template="{name} {n} {of.x}[, {no}]")
    assert found.texts == ["Tea 5 a, b"]
    assert "'n' is no text but an object" in found.reasons[0]


def test_a_template_knows_names_and_nothing_else() -> None:
    data = "a,a.b,a!r,a:>9\n1,2,3,4\n"
    assert read(data, "x.csv", template="{a}{a.b}{a!r}{a:>9} {{x}} [[y]]").texts == ["1234 {x} [y]"]
    found = read(data, "x.csv", template="{a.__class__}")
    assert found.items == []
    assert "there is no column 'a.__class__'" in str(found.error)


@pytest.mark.parametrize("template", ["", "none", "{", "}", "{}", "[x] {a}", "[{a}", "[{a}[{b}]]", "{a}]"])
def test_templates_that_cannot_be(template) -> None:
    with pytest.raises(ValueError, match="template"):
        open_facts("never-opened", template=template)


def test_records_are_chosen_by_their_values() -> None:
    data = "Text,Shelf,Stars\na,read,5\nb,to-read,5\nc,read,1\n"
    assert read(data, "x.csv", where={"shelf": "read"}).texts == ["a", "c"]
    assert read(data, "x.csv", where=["Shelf=read", "Stars=5"]).texts == ["a"]
    assert read(data, "x.csv", where=["Shelf=read", "Shelf=to-read"]).skipped == {}
    found = read(data, "x.csv", where=["Nope=1"])
    assert (found.items, "there is no column 'Nope'" in str(found.error)) == ([], True)
    records = '{"content": "a", "x": {"ok": true}}\n{"content": "b", "x": {"ok": false}}\n"c"\n'
    found = read(records, where=["x.ok=true"])
    assert found.texts == ["a"]
    assert found.skipped == {"not chosen by where": 2}


def test_a_text_has_no_fields_to_choose_by() -> None:
    assert "finds no keys or columns" in str(read("tea\n", where=["a=b"]).error)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"where": ["x"]}, "is not FIELD=VALUE"),
        ({"include": ["all"]}, "there is no 'all'"),
        ({"long": "cut"}, "long must be"),
        ({"encoding": "nope"}, "no text encoding 'nope'"),
        ({"encoding": "base64"}, "no text encoding 'base64'"),
        ({"template": "{a}", "mapping": {"content": "a"}}, "leave 'content' out"),
    ],
)
def test_choices_that_cannot_be(options, words) -> None:
    with pytest.raises(ValueError, match=words):
        open_facts("never-opened", **options)


def test_an_encoding_is_taken_at_its_word_but_for_a_mark() -> None:
    assert read("café\n".encode("cp1252"), encoding="cp1252").texts == ["café"]
    assert read("каша\n".encode("koi8-r"), encoding="KOI8_R").texts == ["каша"]
    assert read("お茶\n".encode("shift_jis"), encoding="sjis").texts == ["お茶"]
    assert read("用户\n".encode("utf-16-be"), encoding="utf-16-be").texts == ["用户"]
    assert read("café\n".encode("utf-8-sig"), encoding="cp1252").texts == ["café"]
    found = read(b"caf\x81\nb\n", encoding="cp1252")
    assert found.texts == ["b"]
    assert len(found.invalid) == 1


@pytest.mark.parametrize(
    ("raw", "guess"),
    [("café und Tee".encode("cp1252"), True), ("каша".encode("cp1251"), False), (b"a\x81b", False)],
)
def test_a_guess_is_made_for_western_windows_alone(raw, guess) -> None:
    (reason,) = read(raw, "x.txt").reasons
    assert ("cp1252" in reason) == guess
    assert "--encoding" in reason


# Long texts


def test_long_texts_are_refused_or_split_but_never_cut() -> None:
    paragraph = "One sentence of this. Dr. Ek, e.g., has 3.5 cats! And so on?"
    text = f"{paragraph}\n\n- {paragraph}\n" + " ".join([paragraph] * 12)
    record = json.dumps({"content": text, "tags": ["t"]})
    assert read(record).facts == []
    found = read(record, long="split")
    assert all(fact.tags == ("t",) for fact in found.facts)
    assert found.texts[:2] == [paragraph, f"- {paragraph}"]
    assert " ".join(found.texts).split() == text.split()
    assert read("x" * 501, long="split").facts == []


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("I am a nurse. I live in Oslo.", 2),
        ("Dr. Ek and St. Olavs are near. Yes.", 2),
        ("It is 3.5 km. See example.com for more.", 2),
        ("J. R. Hartley wrote it.", 1),
        ("He said “no.” Then he left.", 2),
        ("approx. three of them, e.g. tea", 1),
        ("お茶が好き。オスロに住む。", 2),
        ("Really?! Yes… Maybe.", 3),
        ("U.S. citizens pay.", 1),
    ],
)
def test_where_sentences_end(text, pieces) -> None:
    assert len(sentences(text)) == pieces


PROSE = st.text(st.sampled_from("aB .!?。\n-é"), max_size=300)


@given(PROSE, st.integers(5, 60))
@example("B" * 6, 5)  # certainly a piece that is too long
def test_splitting_loses_nothing_and_goes_no_further_than_it_must(text, longest) -> None:
    pieces = split(text, longest)
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(piece == piece.strip() and piece for piece in pieces)
    for piece in pieces:
        if len(piece) > longest:
            assert len(sentences(piece)) == 1
