import io
import tarfile

import pytest

from adjudge.errors import ConfigError, DataError
from adjudge.setup.fetch import FETCHABLE, fetch
from adjudge.system.download import DownloadError
from adjudge.tasks.reading import vader


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ADJUDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _tar(members):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def vader_archive():
    inner = _tar({f"hutto_ICWSM_2014/{name}": b"1\t2.5\tGood.\r\n" for name in vader.FILES.values()})
    return _tar({"vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz": inner})


def test_the_rated_sentences_are_fetched_once(cache, monkeypatch, capsys):
    calls = []

    def download(package, folder):
        calls.append(package.name)
        path = folder / "a.tar.gz"
        path.write_bytes(vader_archive())
        return path

    monkeypatch.setattr(vader, "download", download)
    assert fetch("vader") == [cache / "vader"]
    assert sorted(path.name for path in (cache / "vader").iterdir()) == sorted(vader.FILES.values())
    assert "already" not in capsys.readouterr().err
    assert fetch("vader") == [cache / "vader"]
    assert "vader: already in" in capsys.readouterr().err
    assert calls == ["vaderSentiment"]


def test_all_fetches_everything(cache):
    for name in FETCHABLE:
        folder = cache / "vader" if name == "vader" else cache / "models" / name
        folder.mkdir(parents=True)
    for name in vader.FILES.values():
        (cache / "vader" / name).touch()
    assert fetch("all") == [cache / "models" / "smollm2-135m", cache / "models" / "minilm-l6", cache / "vader"]


def test_no_network_is_a_data_error_for_data(cache, monkeypatch):
    def download(package, folder):
        raise DownloadError("no route")

    monkeypatch.setattr(vader, "download", download)
    with pytest.raises(DataError, match=r"not in the cache.*no route"):
        fetch("vader")


def test_an_unknown_fetch_name_suggests_the_nearest(cache):
    with pytest.raises(ConfigError, match="Did you mean 'vader'"):
        fetch("vaders")
