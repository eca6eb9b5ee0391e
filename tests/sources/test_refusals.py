"""What is no list of facts is refused as a whole, whatever its name; what is one is not."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sources.source_reading import read


def tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("facts.jsonl"))
    return out.getvalue()


FOREIGN: dict[str, str | bytes] = {
    "a program": b"\x7fELF\2\1\1",
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    "a binary file": pickle.dumps(["User likes tea"] * 3),
    "a binary file ": zlib.compress(bytes(range(256)) * 40),
    "a tar archive": tar(),
    "a 7-Zip archive": b"7z\xbc\xaf\x27\x1c\0\4",
    "a RAR archive": b"Rar!\x1a\x07\x01\0",
    "a web page": "<!DOCTYPE html>\n<html><p>User likes tea</p></html>\n",
    "a web page ": "Menu\n<html>\n<p>User likes tea</p>\n</html>\n",
    "XML or HTML": '<?xml version="1.0"?>\n<notes>\n<note>User likes tea</note>\n</notes>\n',
    "XML or HTML ": "<p>User likes tea</p>\n<p>User lives in Oslo</p>\n",
    "Rich Text Format": "{\\rtf1\\ansi User likes tea\\\nUser lives in Oslo}",
    "YAML": "memories:\n  - content: User likes tea\n    category: work\n",
    "YAML ": "facts:\n  - User likes tea\n  - User lives in Oslo\n",
    "YAML  ": "---\ncontent: User likes tea\n---\ncontent: User lives in Oslo\n",
    "YAML   ": "- content: User likes tea\n  category: work\n",
    "a calendar": "BEGIN:VCALENDAR\r\nSUMMARY:Dentist\r\nEND:VCALENDAR\r\n",
    "a card": "BEGIN:VCARD\nFN:Dana\nEND:VCARD\n",
    "mail": "From: a@b.example\nTo: c@d.example\nSubject: Tea\n\nI like it.\n",
    "a mailbox": "From a@b.example Mon Jan  1 10:00:00 2024\nSubject: Tea\n\nI like it.\n",
    "SQL": "CREATE TABLE facts (\n  content TEXT\n);\nINSERT INTO facts VALUES ('User likes tea');\n",
    "SQL ": "insert into facts values ('User likes tea');\n",
    "source code": "import os\n\n\ndef main():\n    return os.name\n",
    "source code ": "#include <stdio.h>\nint main(void) {\n  return 0;\n}\n",
    "source code  ": 'facts = [\n    "User likes tea",\n    "User lives in Oslo",\n]\n',
    "source code   ": "body {\n  color: red;\n}\n",
    "a script": "#!/bin/sh\necho tea\n",
    "JavaScript": 'window.YTD.tweets.part0 = [\n  {"tweet": {"full_text": "tea"}}\n]\n',
    "JSON5": "[\n  {content: 'User likes tea'},\n]\n",
    "JSON5 ": '[{"content": "User likes tea"}, // first\n {"content": "b"}]\n',
    "JSON5  ": "{'memories': ['User likes tea']}\n",
    "settings": "[me]\nname = Dana\nlikes = tea\n",
    "subtitles": "1\n00:00:01,000 --> 00:00:02,000\nUser likes tea\n",
    "a chat": "12/01/2024, 10:11 - Dana: hi\n12/01/2024, 10:12 - Kim: hello\n",
    "a log": "2024-01-01 10:00:00 INFO start\n2024-01-01 10:00:01 INFO stop\n",
    "a patch": "diff --git a/x b/x\n--- a/x\n+++ b/x\n-tea\n+coffee\n",
    "a TeX document": "\\documentclass{article}\n\\begin{document}\nTea.\n\\end{document}\n",
    "a key": "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
    "Claude's conversations": '[{"uuid": "x", "chat_messages": []}]',
    "the manifest": '{"created_at": "", "version": "1.0", "data_files": []}',
}


@pytest.mark.parametrize("name", ["x", "x.txt", "x.csv", "x.json"])
@pytest.mark.parametrize("words", FOREIGN)
def test_it_is_refused_with_what_it_looks_like(words, name) -> None:
    found = read(FOREIGN[words], name)
    assert found.facts == []
    assert found.items == []
    assert found.error is not None
    if name in {"x", "x.txt"}:
        assert words.strip() in str(found.error)


@pytest.mark.parametrize("words", [words for words, data in FOREIGN.items() if isinstance(data, str)])
def test_format_text_insists(words) -> None:
    data = FOREIGN[words]
    assert isinstance(data, str)
    lines = [line.strip() for line in data.splitlines() if line.strip()]
    assert read(data, "x", "text").texts == lines


@pytest.mark.parametrize(
    "name", ["a.py", "a.html", "a.yaml", "a.yml", "a.sql", "a.ics", "a.vcf", "a.eml", "a.json5"]
)
def test_a_foreign_name_is_enough_for_a_text(name) -> None:
    found = read("User likes tea\nUser lives in Oslo\n", name)
    assert found.items == []
    assert "--format text" in str(found.error)
    assert read('{"content": "tea"}\n', name).texts == ["tea"]


LIST = """\
User likes tea
User imports coffee from Kenya; he roasts it himself
class of 2009 at Oslo University
If it rains, user stays home
User's son (Tom) is 3; their dog is 5
User said: "return the book by Friday"
Name: Dana
Email: dana@example.com
From: Bergen
User prefers Python = simple
let me know that user is vegan
<3 is how user signs
[x] is no secret of his
{name} is a placeholder to him
"""


@pytest.mark.parametrize("name", ["x", "x.txt", "stdin"])
def test_sentences_are_no_code(name) -> None:
    assert read(LIST, name).texts[:-2] == LIST.splitlines()[:-2]


WORD = st.text(st.characters(categories=["L"]), min_size=1, max_size=9)
SENTENCE = st.lists(WORD, min_size=3, max_size=9).map(lambda words: f"User {' '.join(words)}.")


@given(st.lists(SENTENCE, min_size=1, max_size=20))
def test_no_list_of_sentences_is_refused_or_changed(sentences) -> None:
    assert read("\n".join(sentences), "x.txt").texts == sentences


@pytest.mark.parametrize("data", ["[" * 100_000, "[" * 100_000 + "]" * 100_000, '{"a":' * 100_000])
@pytest.mark.parametrize("name", ["x", "x.txt", "x.json", "x.jsonl", "x.csv", "x.md"])
def test_nesting_without_end_is_no_crash(data, name) -> None:
    found = read(data, name)
    assert found.facts == []
    assert found.error is not None or len(found.invalid) == 1


def test_a_program_packed_by_gzip_is_one_all_the_same() -> None:
    assert "a program" in str(read(gzip.compress(b"\x7fELF\2\1\1")).error)
