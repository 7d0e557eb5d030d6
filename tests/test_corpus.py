"""Which scenes training sees: the same ones however they are asked for."""

import itertools

import pytest

from xray.miniature import corpus
from xray.miniature.corpus import captions_seen, described, pictured


@pytest.mark.parametrize("stream", [pictured, described])
def test_a_stream_goes_on_from_anywhere(stream):
    whole = list(itertools.islice(stream(3), 30))
    assert list(itertools.islice(stream(3, 20), 10)) == whole[20:]
    assert len({s.caption for s in whole}) > 20


def test_later_pictures_have_more_things():
    first = [len(s.objects) for s in itertools.islice(pictured(), 300)]
    later = [len(s.objects) for s in itertools.islice(pictured(0, corpus.LATER), 300)]
    assert sum(first) / 300 == pytest.approx(1.5, abs=0.15)
    assert sum(later) / 300 == pytest.approx(2.2, abs=0.15)


def test_processes_find_the_captions_that_the_streams_have(monkeypatch):
    wanted = {s.caption for s in itertools.islice(pictured(1), 50)}
    wanted |= {s.caption for s in itertools.islice(described(1), 70)}
    wanted |= {s.caption for s in itertools.islice(described(2), 20)}
    assert captions_seen({1: 50}, {1: 70, 2: 20}) == wanted
    monkeypatch.setattr(corpus, "_PART", 30)
    assert captions_seen({1: 50}, {1: 70, 2: 20}) == wanted
